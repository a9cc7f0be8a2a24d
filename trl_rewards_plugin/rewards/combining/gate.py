"""A reward that counts only where other rewards reach a threshold: style where grammar holds. Pure tensor maths."""

from collections.abc import Mapping

import torch
from torch import Tensor


def passes(raw: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> Tensor:
    """Which texts get through a gate, (N,) bool.

        passes[n] = raw[name][n] >= thresholds[name], for every name in thresholds

    A text without a gating score (NaN) does not pass: nothing says that it may.

    Args:
        raw: Name -> scores (N,) before normalisation and weights.
        thresholds: Name -> least score; at least one.
    """
    return torch.stack([raw[name] >= least for name, least in thresholds.items()]).all(dim=0)


def gated(scores: Tensor, passing: Tensor, floor: float) -> Tensor:
    """Scores (N,) of texts that pass, `floor` for those that do not; NaN, no score, stays NaN."""
    return torch.where(passing | scores.isnan(), scores, floor)
