"""The numbers behind every chart: points and trailing means of a log (`trainer.state.log_history`), histograms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

Log: TypeAlias = Sequence[Mapping[str, Any]]
T = TypeVar("T", bound=tuple[np.ndarray | None, ...])

SCORES = "objective/scores"
KL = "objective/kl"
HELD_OUT_REWARD = "eval_held_out_reward"
OTHER_PROMPTS = "other_prompts"
"""Marks the row of an evaluation of other prompts than the run's own: `trainer.evaluate(other)`."""
DRAWABLE = 1e300  # a range of greater numbers would overflow


@dataclass(frozen=True)
class Panel:
    """A quantity in words, and its keys in a rollout's row of the log and, where there is one, in an evaluation's."""

    title: str
    unit: str
    key: str
    eval_key: str | None = None

    @property
    def is_component(self) -> bool:
        return self.key.startswith("rewards/")


@dataclass(frozen=True)
class Series:
    """A line of R finite points, measured on rollouts or on held-out prompts; `index` is its colour."""

    name: str
    index: int
    steps: np.ndarray
    episodes: np.ndarray
    values: np.ndarray
    held_out: bool = False
    by_step: bool = False  # the log counts no episodes: in their place are the steps

    @property
    def full_name(self) -> str:
        return f"{self.name}, held-out prompts" if self.held_out else self.name

    @property
    def window(self) -> int:
        """How many values the bold line averages; 1: it is the values themselves."""
        return 1 if self.held_out else smoothing_window(len(self.values))

    @property
    def means(self) -> np.ndarray:
        """(R,) trailing means."""
        return moving_average(self.values, self.window)


def panels(logs: Sequence[Log]) -> list[Panel]:
    """Reward, held-out reward, components, KL, length, entropy and multipliers, as far as some log holds them."""
    keys = dict.fromkeys(key for log in logs for row in own_rows(log) for key in row)
    components = [
        Panel(key.split("/", 1)[1].removesuffix("/mean"), "mean score of a rollout, unweighted", key, f"eval_{key}")
        for key in keys
        if key.startswith("rewards/") and key.endswith("/mean") and not all(_is_total(log, key) for log in logs)
    ]
    known = [
        Panel("Reward", "mean of a rollout", SCORES, "eval_reward"),
        Panel("Held-out reward", "mean of held-out prompts", HELD_OUT_REWARD, HELD_OUT_REWARD),
        *components,
        Panel("KL to the reference", "nats per response", KL, "eval_kl"),
        Panel("Response length", "tokens", "tokens/responses_len_mean", "eval_length"),
        Panel("Entropy", "nats per token", "objective/entropy"),
        *(
            Panel(f"Multiplier {key.partition('/')[2].replace('/', ' ')}", "per std", key)
            for key in keys
            if key.startswith("multiplier/")
        ),
    ]
    return [panel for panel in known if panel.key in keys]


def total_name(log: Log) -> str | None:
    """The reward that repeats the total."""
    keys = dict.fromkeys(key for row in log for key in row if key.startswith("rewards/") and key.endswith("/mean"))
    return next((key[len("rewards/") : -len("/mean")] for key in keys if _is_total(log, key)), None)


def _is_total(log: Log, key: str) -> bool:
    """Whether `key` repeats the reward wherever `log` has it: the total is logged under its own name, too."""
    pairs = np.array([(row[key], row.get(SCORES, math.nan)) for row in log if key in row], dtype=np.float64)
    part, total = pairs.reshape(-1, 2).T
    return np.allclose(part, total, rtol=1e-4, atol=1e-6, equal_nan=True)


def own_rows(log: Log) -> list[Mapping[str, Any]]:
    """The rows of `log` that belong to the run's own series."""
    return [row for row in log if OTHER_PROMPTS not in row]


def series_of(log: Log, panel: Panel, name: str, index: int) -> list[Series]:
    """Finite values that `log` has of `panel`: of rollouts, and of evaluations where there are any."""
    own = own_rows(log)
    rollouts = [row for row in own if SCORES in row]
    # Every rollout of a run has as many episodes; an evaluation's row holds its step only.
    episodes_per_step = rollouts[-1].get("episode", rollouts[-1]["step"]) / rollouts[-1]["step"] if rollouts else 1.0
    by_step = bool(rollouts) and "episode" not in rollouts[-1]
    found = []
    for key, held_out in {panel.key: False, panel.eval_key: True}.items():
        if key is None:
            continue
        pairs = np.array([(row["step"], row[key]) for row in own if key in row], dtype=np.float64).reshape(-1, 2)
        steps, values = pairs[np.abs(pairs[:, 1]) < DRAWABLE].T
        if len(steps):
            found.append(Series(name, index, steps, steps * episodes_per_step, values, held_out, by_step))
    return found


def smoothing_window(rollouts: int) -> int:
    """Rollouts that the bold line averages: the last tenth."""
    return max(1, rollouts // 10)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """(R,) mean of the last `window` values at each step, of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most `most` of (R,) values: the ends, and the least and greatest of equal stretches between."""
    if len(values) <= most:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), (most - 2) // 2)
    extremes = [stretch[pick(values[stretch])] for stretch in stretches for pick in (np.argmin, np.argmax)]
    return np.unique([0, *extremes, len(values) - 1])


@dataclass(frozen=True)
class Histogram:
    """How many of the scored outputs lie in each of E bins, (E,), and their mean; None where nothing was scored."""

    counts: np.ndarray
    mean: float | None


def histograms(*sides: np.ndarray) -> tuple[np.ndarray, list[Histogram]]:
    """(E + 1,) edges of equal bins, and over them the histogram of each side: (N,), NaN where nothing was scored."""
    scored = [values[np.abs(values) < DRAWABLE] for values in sides]
    edges = _edges(np.concatenate(scored), max(map(len, sides)))
    drawn = [
        Histogram(np.histogram(values, edges)[0], float(values.mean()) if len(values) else None) for values in scored
    ]
    return edges, drawn


def distinct(rows: Mapping[str, T]) -> dict[tuple[str, ...], T]:
    """`rows` of (N,) scores, equal ones once under all their names: a single component's, rougeLsum's of single lines.

    Constant scores are kept apart: two metrics that found nothing are two findings.
    """
    names: dict[bytes | str, list[str]] = {}
    for name, sides in rows.items():
        scores = np.concatenate([side for side in sides if side is not None]) + 0.0  # no -0.0
        varies = len(np.unique(scores[~np.isnan(scores)])) > 1
        names.setdefault(scores.tobytes() if varies else name, []).append(name)
    return {tuple(equal): rows[equal[0]] for equal in names.values()}


def _edges(values: np.ndarray, outputs: int) -> np.ndarray:
    """8 to 24 bins, more where there are more `outputs`; one bin around a number that stands alone."""
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if low == high:
        half = 0.5 * max(abs(low), 1.0)
        return np.array([low - half, low + half])
    return np.linspace(low, high, int(np.clip(1.5 * np.sqrt(outputs), 8, 24)) + 1)
