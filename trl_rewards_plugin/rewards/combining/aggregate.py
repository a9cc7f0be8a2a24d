"""Scores of K rewards on N texts -> one total per text.

Every function takes scores (N, K), one column per reward, and weights (K,), and returns totals (N,) in the dtype of
the scores; shapes that do not fit raise ValueError. A missing score is NaN (TRL's None): it takes no part in a total,
and a text without any score has the total NaN.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def weighted_sum(scores: Tensor, weights: Tensor) -> Tensor:
    """As in TRL's GRPOTrainer; a missing score does not rescale the other weights.

    total[n] = sum over k with scores[n, k] not NaN of weights[k] * scores[n, k]
    """
    weights = _checked(weights, scores)
    return torch.where(scores.isnan().all(dim=1), torch.nan, (scores * weights).nansum(dim=1))


def weighted_mean(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the scores that a text has; weights are not negative.

        total[n] = sum_k weights[k] * scores[n, k] / sum_k weights[k],  both over k with scores[n, k] not NaN

    It is NaN where that sum of weights is 0. Unlike in `weighted_sum` a missing score does not pull a total towards 0.
    """
    present = _checked(weights, scores) * ~scores.isnan()
    # 0 / 0 is the NaN that is wanted.
    return (scores.nan_to_num(nan=0.0) * present).sum(dim=1) / present.sum(dim=1)


def mean_minus_std(scores: Tensor, weights: Tensor, disagreement_coef: float = 1.0) -> Tensor:
    """Several judges of one question, less what they disagree by; weights are not negative.

        total[n] = mean[n] - disagreement_coef * std[n],  both over the judges k, as in `weighted_mean`
        std[n] = sqrt(sum_k weights[k] * (scores[n, k] - mean[n])^2 / sum_k weights[k])

    Coste et al., "Reward Model Ensembles Help Mitigate Overoptimization" (arXiv 2310.02743): UWO, but by the standard
    deviation, which has the unit of the scores, not the variance. Their WCO is `minimum`.
    """
    mean = weighted_mean(scores, weights)
    return mean - disagreement_coef * weighted_mean((scores - mean[:, None]).square(), weights).sqrt()


def minimum(scores: Tensor, weights: Tensor) -> Tensor:
    """The worst weighted score of each text: no reward can be traded for another, and a weight of 0 leaves one out.

    total[n] = min over k with scores[n, k] not NaN and weights[k] != 0 of weights[k] * scores[n, k], NaN without any
    """
    weights = _checked(weights, scores)
    left_out = scores.isnan() | (weights == 0)
    smallest = torch.where(left_out, torch.inf, scores * weights).amin(dim=1)
    return torch.where(left_out.all(dim=1), torch.nan, smallest)


def geometric_mean(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted geometric mean of probabilities in [0, 1]: near 0 where any of them is; weights are not negative.

    total[n] = exp(weighted mean over k of log scores[n, k]), as in `weighted_mean`
    """
    missing = scores.isnan()
    present = _checked(weights, scores) * ~missing
    # xlogy(0, 0) is 0: a probability of 0 without weight changes nothing.
    logs = torch.xlogy(present, scores.masked_fill(missing, 1.0)).sum(dim=1)
    return (logs / present.sum(dim=1)).exp()


AGGREGATIONS: dict[str, Callable[..., Tensor]] = {
    one.__name__: one for one in (weighted_sum, weighted_mean, mean_minus_std, minimum, geometric_mean)
}


def _checked(weights: Tensor, scores: Tensor) -> Tensor:
    if scores.ndim != 2 or weights.ndim != 1 or scores.shape[1] != weights.shape[0]:
        found = f"scores {tuple(scores.shape)} and weights {tuple(weights.shape)}"
        raise ValueError(f"aggregation needs scores (N, K) and weights (K,), found {found}")
    return weights.to(scores.dtype)
