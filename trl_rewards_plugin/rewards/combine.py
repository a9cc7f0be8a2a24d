"""Scores of K rewards on N texts -> one total a text. Pure tensor maths, no models."""

import torch
from torch import Tensor


def weighted_sum(scores: Tensor, weights: Tensor) -> Tensor:
    """Total reward of each text, with TRL's meaning of a missing score.

        total[n] = sum over k with scores[n, k] not NaN of weights[k] * scores[n, k]
        total[n] = NaN where every scores[n, :] is NaN

    As in TRL's GRPOTrainer (`(rewards * weights).nansum(dim=1)`, rows without any score masked out): a reward that
    returned None for a text takes no part in it, and the other weights are not rescaled.

    Args:
        scores: (N, K), one column a reward, NaN where a reward has nothing to say of a text.
        weights: (K,).

    Returns:
        (N,), in the dtype of `scores`.

    Raises:
        ValueError: the shapes do not fit; both are printed.
    """
    if scores.ndim != 2 or weights.ndim != 1 or scores.shape[1] != weights.shape[0]:
        raise ValueError(
            f"weighted_sum needs scores (N, K) and weights (K,), found scores {tuple(scores.shape)} "
            f"and weights {tuple(weights.shape)}"
        )
    missing = scores.isnan()
    total = (scores * weights.to(scores.dtype)).nansum(dim=1)
    # all() over zero rewards is True as well: no rewards, no total.
    return torch.where(missing.all(dim=1), torch.nan, total)
