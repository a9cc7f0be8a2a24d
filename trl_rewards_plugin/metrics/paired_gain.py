"""Paired scores -> mean gain, its interval, share improved, and the pairs to look at. Pure.

What the module `reward_gain` computes, and the recipes claim. Leaves out: where scores come from.
"""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from trl_rewards_plugin.errors import InputError

RESAMPLES = 10_000
MIN_PAIRS = 5  # fewer pairs say too little of their own spread for an interval
BLOCK = 1_000

Interval = tuple[float, float] | tuple[None, None]


def paired_gain(
    before: Sequence[float | None], after: Sequence[float | None], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Gain of N scores `after` over those of the same prompts `before`; see `paired_bootstrap`.

    Returns:
        `{"reward_gain": mean, "ci95": [low, high], "share_improved": share, "n": pairs}`, without the pairs with a
        None or NaN; None for the numbers where no pair is left, and [None, None] where too few are for an interval.

    Raises:
        InputError: see `as_scores`; or resamples or seed out of range.
    """
    for what, value, least in (("resamples", resamples, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            step = "leave it out: 10,000 resamples with seed 0 are the usual choice"
            raise InputError(f"{what} as a whole number of at least {least}", repr(value), step)
    # None becomes NaN.
    pairs = np.array([as_scores(before, "before"), as_scores(after, "after")], dtype=np.float64)
    first, second = pairs[:, ~np.isnan(pairs).any(axis=0)]
    if not len(first):
        return {"reward_gain": None, "ci95": [None, None], "share_improved": None, "n": 0}
    mean, interval = paired_bootstrap(first, second, resamples=resamples, seed=seed)
    improved = float((second > first).mean())
    return {"reward_gain": mean, "ci95": list(interval), "share_improved": improved, "n": len(first)}


def paired_bootstrap(
    before: np.ndarray, after: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, Interval]:
    """Mean of `after - before` and an interval for it that holds for few and for skewed pairs too.

    With d = after - before (N,) and its standard error se = std(d) / sqrt(N), each end is the further one of

        Student's t            mean(d) -+ t(N - 1) * se
        studentised bootstrap  mean(d) - q * se, with q the (1 + level) / 2 and (1 - level) / 2 quantiles of
                               (mean(d[i]) - mean(d)) / se(d[i]) over draws of N indices i with replacement

    Efron & Tibshirani, An Introduction to the Bootstrap, 12.5. Quantiles of the resampled means themselves would be
    too narrow: 95 % of two prompts would cover 50 %. For what it covers see docs/explanation/gains.md.

    `before` and `after` (N,) have the same prompts in the same order; a generator of their own with `seed` makes the
    draws; `level` is how often the interval is to cover the mean. Returned are the mean, and (low, high): (None, None)
    of fewer than MIN_PAIRS pairs, and of differences that are all equal, whose spread says nothing of other prompts.
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise ValueError(f"before and after must be (N,) with the same N >= 1, got {before.shape} and {after.shape}")
    difference = after - before
    mean, pairs = float(difference.mean()), len(difference)
    rounding = 1e-12 * max(1.0, float(np.abs(difference).max()))
    if pairs < MIN_PAIRS or np.ptp(difference) <= rounding:
        return mean, (None, None)
    error = float(difference.std(ddof=1)) / math.sqrt(pairs)
    generator, centred, found = np.random.default_rng(seed), difference - mean, [np.zeros(0)]
    # In blocks: (resamples, N) indices at once would take 80 MB at N = 1,000.
    for start in range(0, resamples, BLOCK):
        drawn = centred[generator.integers(0, pairs, (min(BLOCK, resamples - start), pairs))]
        errors = drawn.std(axis=1, ddof=1) / math.sqrt(pairs)
        spread = np.ptp(drawn, axis=1) > 0
        found.append(drawn.mean(axis=1)[spread] / errors[spread])
    # (Resampled mean - mean) / its own standard error, of every resample that has one.
    studentised = np.concatenate(found) if any(map(len, found)) else np.zeros(1)
    low, high = np.quantile(studentised, [(1 - level) / 2, (1 + level) / 2])
    student = student_quantile((1 + level) / 2, pairs - 1)
    return mean, (mean - max(float(high), student) * error, mean - min(float(low), -student) * error)


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t, within 0.3 % for 4 or more degrees of freedom.

    Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))


def as_scores(values: Any, what: str) -> list[float | None]:
    """N scores as a list of finite numbers, NaN or None, else InputError. Tensors and arrays are read too."""
    if isinstance(values, str) or not isinstance(_plain(values), Iterable):
        found = f"{type(values).__name__} {values!r}"[:100]
        raise InputError(f"{what} as a list of scores", found, "give one score per prompt")
    listed = [_plain(value) for value in _plain(values)]
    for place, value in enumerate(listed):
        number = value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))
        if not number or (value is not None and math.isinf(value)):
            expected = f"finite numbers in {what}, and None where there is no score"
            raise InputError(expected, f"{what}[{place}] is {value!r}", "find out what scored that text")
    return listed


def _plain(values: Any) -> Any:
    """A tensor's or an array's numbers as Python's own; anything else as it is."""
    return values.tolist() if callable(getattr(values, "tolist", None)) else values


def pairs_by_gain(rows: Sequence[Mapping[str, Any]], kind: str = "_greedy") -> dict[str, Mapping[str, Any]]:
    """Title -> row of completions.parquet, by the gain of its greedy outputs: the two best, the median, and the worst.

    The worst one only if it got worse. With `kind=""` by the gain of the sampled outputs.
    """
    keys = (f"after{kind}_reward", f"before{kind}_reward")
    sides = [[row.get(key) for row in rows] for key in keys]
    gains = dict(enumerate(np.subtract(*np.array(sides, dtype=np.float64))))
    order = sorted((place for place, gain in gains.items() if not np.isnan(gain)), key=lambda place: -gains[place])
    if not order:
        return {}
    shown = {place: round(gain, 2) + 0.0 for place, gain in gains.items()}  # no "-0.00"
    lost = [shown[place] < 0 for place in order]
    chosen = {order[0]: "Smallest loss" if lost[0] else "Best gain"}
    chosen[order[len(order) // 2]] = "Median loss" if lost[len(order) // 2] else "Median gain"
    if lost[-1]:
        chosen[order[-1]] = "Largest loss"
    if len(order) > 1:
        chosen.setdefault(order[1], "Second smallest loss" if lost[1] else "Second best gain")
    return {f"{chosen[place]} ({shown[place]:+.2f})": rows[place] for place in order if place in chosen}
