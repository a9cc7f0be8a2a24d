"""Does one reward hold while another, which training never sees, falls (Gao et al., arXiv 2210.10760)?"""

import torch
from torch import Tensor

LIMIT = 4.6
"""Standard deviations that a fall must exceed: of runs of 12 to 100 evaluations of noise alone, at most 5 % do."""


def evaluation_noise(values: Tensor) -> Tensor:
    """Standard deviation of the noise in evaluations (K,), which takes a trend for noise; 0-d.

    sqrt(mean of (v[k + 1] - v[k])^2 / 2), the mean square successive difference of von Neumann et al. (1941).
    """
    return (values.diff().square().mean() / 2).sqrt()


def find_parting(first: Tensor, second: Tensor) -> tuple[int, float, float] | None:
    """Where evaluations `second` (K,) fell from their best by more than noise, and `first` (K,) did not; else None.

    With means F[k] and S[k] over the w = max(3, K // 5) evaluations up to k, and b that of the largest S[b] among the
    windows that end before the last one begins, from K = 2 w on, they part where

        F[b] - F[K] <= 4.6 noise(first) sqrt(2 / w)    and    S[b] - S[K] > 4.6 noise(second) sqrt(2 / w)

    noise x sqrt(2 / w) being the standard deviation of the difference of two such means, and noise that of the
    evaluations since window b begins: the way up to it is a trend. `first` need not rise: on prompts held out, the
    reward that is over-trained often stalls. Returns the last index of window b, what `first` rose by since, and what
    `second` fell by.
    """
    window = max(3, len(second) // 5)
    if len(second) < 2 * window:
        return None
    values = torch.stack([first, second]).double()
    means = values.unfold(1, window, 1).mean(2)  # (2, K - w + 1)
    best = int(means[1, :-window].argmax())
    rise, drop = (means[:, -1] - means[:, best]).tolist()
    tolerated, least_fall = (LIMIT * evaluation_noise(row[best:]).item() * (2 / window) ** 0.5 for row in values)
    return (best + window - 1, rise, -drop) if -rise <= tolerated and -drop > least_fall else None
