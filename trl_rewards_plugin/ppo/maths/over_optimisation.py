"""Has one reward risen while another, which training never sees, fell? From the evaluations of a run alone."""

from typing import NamedTuple

import torch
from torch import Tensor

WINDOW = 3  # evaluations at least; then a fifth of those so far
DEVIATIONS = 4.0


class Parting(NamedTuple):
    """Two rewards that part: by how much one rose and the other fell since the evaluation `since`."""

    since: int
    rise: float
    fall: float


def evaluation_noise(values: Tensor) -> Tensor:
    """Standard deviation of the noise in evaluations `values` (K,) of a policy that moves slowly; 0-d.

    sqrt(mean of (v[k + 1] - v[k])^2 / 2), the mean square successive difference of von Neumann et al. (Annals of
    Mathematical Statistics 12, 1941). What the policy moves between two evaluations counts as noise too.
    """
    return (values.diff().square().mean() / 2).sqrt()


def find_parting(first: Tensor, second: Tensor) -> Parting | None:
    """Where `first` has risen and `second` fallen since its best, both by more than noise; None if they have not.

    Let F[k] and S[k] be the means of first and second over the w evaluations up to k, w = max(3, K // 5), and b the
    evaluation of the largest S[b] among those whose windows end before the last window begins. They part where

        F[K] - F[b] > 4 evaluation_noise(first) sqrt(2 / w)    and
        S[b] - S[K] > 4 evaluation_noise(second) sqrt(2 / w)

    noise x sqrt(2 / w) being the standard deviation of the difference of two such means. It takes 6 evaluations.
    That a held-out reward falls while the one that is optimised rises: Gao et al., arXiv 2210.10760.

    Args:
        first, second: (K,) means of the evaluations so far, in order.
    """
    count = len(second)
    window = max(WINDOW, count // 5)
    if count < 2 * window:
        return None
    values = torch.stack([first, second]).double()
    means = values.unfold(1, window, 1).mean(2)  # (2, K - w + 1)
    best = int(means[1, : count - 2 * window + 1].argmax())
    rise, drop = (means[:, -1] - means[:, best]).tolist()
    limits = [DEVIATIONS * float(evaluation_noise(row)) * (2 / window) ** 0.5 for row in values]
    parted = rise > limits[0] and -drop > limits[1]
    return Parting(best + window - 1, rise, -drop) if parted else None
