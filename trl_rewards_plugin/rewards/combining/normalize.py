"""Scores of one reward -> scores on a common scale: running z-score, fixed mean and scale. Pure maths, no state."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations from the mean (`m2`) of the scores seen so far."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @property
    def std(self) -> float:
        """Population standard deviation, sqrt(m2 / count); 0 before any score."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0


def moments_of(scores: Tensor) -> Moments:
    """Moments, in float64, of the scores (N,) that are not NaN."""
    seen = scores[~scores.isnan()].double()
    if not len(seen):
        return Moments()
    mean = seen.mean()
    return Moments(len(seen), mean.item(), (seen - mean).square().sum().item())


def merged(first: Moments, second: Moments) -> Moments:
    """Moments of both sets of scores together, as if they had been seen at once.

        n = n1 + n2;  d = mean2 - mean1
        mean = mean1 + d * n2 / n
        m2 = m2_1 + m2_2 + d^2 * n1 * n2 / n

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """
    if not first.count or not second.count:
        return first if first.count else second
    count = first.count + second.count
    delta = second.mean - first.mean
    mean = first.mean + delta * second.count / count
    return Moments(count, mean, first.m2 + second.m2 + delta**2 * first.count * second.count / count)


def used_scale(moments: Moments) -> tuple[float, float]:
    """Mean and standard deviation by which `z_scores` normalises.

    While all scores seen were alike (std below 1e-6 of the mean or, for a mean within 1 of 0, below 1e-6: float
    rounding of a judge) there is no scale yet: std counts as 1.
    """
    alike = moments.std <= 1e-6 * max(1.0, abs(moments.mean))
    return moments.mean, 1.0 if alike else moments.std


def z_scores(scores: Tensor, moments: Moments) -> Tensor:
    """(scores[n] - mean) / std by `used_scale` for scores (N,); before any score was seen, the score itself."""
    return rescaled(scores, *used_scale(moments))


def rescaled(scores: Tensor, mean: float, scale: float) -> Tensor:
    """(scores[n] - mean) / scale for scores (N,), in their dtype; NaN stays NaN."""
    return ((scores.double() - mean) / scale).to(scores.dtype)
