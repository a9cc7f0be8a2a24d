"""Token ids that are known beforehand, as tensors: made once a device and kept.

A tensor made of Python's numbers is copied to a GPU, and the copy waits until all that was asked of it is done.
"""

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def known_ids(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """(N,) int64, shared by all who ask: not to be written to."""
    return torch.tensor(ids, dtype=torch.long, device=device)
