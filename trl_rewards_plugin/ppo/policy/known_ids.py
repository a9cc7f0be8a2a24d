"""Token ids that are known beforehand, as tensors: made once per device and kept.

A tensor made from Python numbers is copied to a GPU, and the copy waits for all work that is queued there.
"""

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def known_ids(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """(N,) int64, shared by all callers: not to be written to."""
    return torch.tensor(ids, dtype=torch.long, device=device)
