"""Paired scores -> mean gain, bootstrap interval, share improved. Pure.

What the module `reward_gain` computes, and the recipes claim. Leaves out: where scores come from.
"""

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from trl_rewards_plugin.errors import InputError

RESAMPLES = 10_000


def paired_gain(
    before: Sequence[float | None], after: Sequence[float | None], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Gain of N scores over those of the same prompts before.

    With the defaults the mean and the interval are those of a run's `metrics.json`. See `paired_bootstrap`.

    Args:
        before: N scores; a pair with a None or NaN in it is left out.
        after: N scores of the same prompts in the same order.

    Returns:
        `{"reward_gain": mean, "ci95": [low, high], "share_improved": share, "n": pairs}`; None for the numbers where
        no pair is left.

    Raises:
        InputError: see `as_scores`; or resamples or seed out of range.
    """
    if not _is_whole(resamples) or resamples < 1:
        raise InputError("resamples as a positive whole number", repr(resamples), "10,000 is the usual choice")
    if not _is_whole(seed) or seed < 0:
        raise InputError("seed as a whole number of at least 0", repr(seed), "leave it out for seed 0")
    # None becomes NaN.
    pairs = np.array([as_scores(before, "before"), as_scores(after, "after")], dtype=np.float64)
    first, second = pairs[:, ~np.isnan(pairs).any(axis=0)]
    if not len(first):
        return {"reward_gain": None, "ci95": [None, None], "share_improved": None, "n": 0}
    mean, interval = paired_bootstrap(first, second, resamples=resamples, seed=seed)
    improved = float((second > first).mean())
    return {"reward_gain": mean, "ci95": list(interval), "share_improved": improved, "n": len(first)}


def paired_bootstrap(
    before: np.ndarray, after: np.ndarray, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Mean of `after - before` and its percentile bootstrap interval, resampling the N pairs.

    With d = after - before (N,): mean(d), and the (1 - level) / 2 and (1 + level) / 2 quantiles of mean(d[i]) over
    `resamples` draws of N indices i with replacement. Efron & Tibshirani, An Introduction to the Bootstrap, 13.3.

    Args:
        before: (N,) one number per prompt.
        after: (N,) of the same prompts in the same order.
        resamples: Draws.
        seed: Of its own generator; the global one is left alone.
        level: Share of the resampled means inside the interval.
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise ValueError(f"before and after must be (N,) with the same N >= 1, got {before.shape} and {after.shape}")
    difference = after - before
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    # One resample at a time: (resamples, N) indices at once would take 80 MB at N = 1,000.
    for row in range(resamples):
        means[row] = difference[generator.integers(0, len(difference), len(difference))].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), (float(low), float(high))


def as_scores(values: Any, what: str) -> list[float | None]:
    """N scores as a list: finite numbers, NaN or None.

    Raises:
        InputError: no list of scores, or one of them is infinite or no number; its place is named.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(
            f"{what} as a list of scores", f"{type(values).__name__} {values!r}"[:100], "give one score per prompt"
        )
    listed = list(values)
    for place, value in enumerate(listed):
        number = value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))
        if not number or (value is not None and math.isinf(value)):
            raise InputError(
                f"finite numbers in {what}, and None where there is no score",
                f"{what}[{place}] is {value!r}",
                "find out what scored that text",
            )
    return listed


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
