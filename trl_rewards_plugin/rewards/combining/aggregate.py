"""Scores of K rewards on N texts -> one total per text. Pure tensor maths, no models.

Every function takes scores (N, K), one column per reward, and weights (K,), and returns totals (N,) in the dtype of
the scores; shapes that do not fit raise ValueError. A missing score is NaN (TRL's None): it takes no part in a total,
and a text without any score has the total NaN.
"""

import torch
from torch import Tensor


def weighted_sum(scores: Tensor, weights: Tensor) -> Tensor:
    """Total reward of each text, with TRL's meaning of a missing score.

        total[n] = sum over k with scores[n, k] not NaN of weights[k] * scores[n, k]
        total[n] = NaN where every scores[n, :] is NaN

    As in TRL's GRPOTrainer (`(rewards * weights).nansum(dim=1)`, rows without any score masked out): a reward that
    returned None for a text takes no part in it, and the other weights are not rescaled.
    """
    _check_shapes("weighted_sum", scores, weights)
    missing = scores.isnan()
    total = (scores * weights.to(scores.dtype)).nansum(dim=1)
    # all() over zero rewards is True as well: no rewards, no total.
    return torch.where(missing.all(dim=1), torch.nan, total)


def weighted_mean(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the scores that a text has; weights are not negative.

        total[n] = sum_k weights[k] * scores[n, k] / sum_k weights[k],  both over k with scores[n, k] not NaN
        total[n] = NaN where that sum of weights is 0

    Unlike in `weighted_sum` a missing score does not pull a text's total towards 0. With equal scores in all columns
    the total is that score, whatever the weights.
    """
    _check_shapes("weighted_mean", scores, weights)
    present = weights.to(scores.dtype) * ~scores.isnan()
    # 0 / 0 is the NaN that is wanted.
    return (scores.nan_to_num(nan=0.0) * present).sum(dim=1) / present.sum(dim=1)


def minimum(scores: Tensor, weights: Tensor) -> Tensor:
    """The worst weighted score of each text: no reward can be traded for another.

        total[n] = min over k with scores[n, k] not NaN and weights[k] != 0 of weights[k] * scores[n, k]
        total[n] = NaN where there is no such k

    The weights put scores of different scales on one, and 0 leaves a reward out.
    """
    _check_shapes("minimum", scores, weights)
    weights = weights.to(scores.dtype)
    left_out = scores.isnan() | (weights == 0)
    smallest = torch.where(left_out, torch.inf, scores * weights).amin(dim=1)
    return torch.where(left_out.all(dim=1), torch.nan, smallest)


def geometric_mean(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted geometric mean of probabilities in [0, 1]: near 0 where any of them is; weights are not negative.

        total[n] = exp(sum_k weights[k] * log scores[n, k] / sum_k weights[k]),  over k with scores[n, k] not NaN
        total[n] = NaN where that sum of weights is 0

    A probability of 0 with a weight above 0 makes the total 0.
    """
    _check_shapes("geometric_mean", scores, weights)
    missing = scores.isnan()
    present = weights.to(scores.dtype) * ~missing
    # xlogy(0, 0) is 0: a probability of 0 without weight changes nothing.
    logs = torch.xlogy(present, scores.masked_fill(missing, 1.0)).sum(dim=1)
    return (logs / present.sum(dim=1)).exp()


def _check_shapes(function: str, scores: Tensor, weights: Tensor) -> None:
    if scores.ndim != 2 or weights.ndim != 1 or scores.shape[1] != weights.shape[0]:
        raise ValueError(
            f"{function} needs scores (N, K) and weights (K,), found scores {tuple(scores.shape)} "
            f"and weights {tuple(weights.shape)}"
        )
