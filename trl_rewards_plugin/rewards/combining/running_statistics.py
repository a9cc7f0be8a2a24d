"""Moments of scores and the z-scores by them, as pure functions; and RunningStatistics, which keeps them in training.

Leaves out when a call may change them (multi.py).
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock


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


Batch = dict[str, Moments]  # name -> moments of one batch of scores


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


def merged_batches(names: Iterable[str], batches: Sequence[Batch]) -> Batch:
    """The moments of each of `names` over all `batches`."""
    return {name: functools.reduce(merged, [batch[name] for batch in batches], Moments()) for name in names}


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


class RunningStatistics:
    """One `Moments` per name, alike in every process, and those that evaluations keep to; updates are atomic."""

    def __init__(self, names: Iterable[str]):
        self.moments: Batch = {name: Moments() for name in names}
        self.evaluation: Batch = {}
        self._lock = ForkSafeLock()

    def batches(self, scores: Mapping[str, Tensor]) -> list[Batch]:
        """The moments of a batch of scores, name -> (N,), by process; each process has to make the call."""
        if not self.moments:
            return []
        own = {name: moments_of(scores[name]) for name in self.moments}
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
            return [own]
        batches: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(batches, own)
        return batches

    def after(self, batches: Sequence[Batch]) -> Batch:
        """What would be known once `batches` were learnt; nothing changes."""
        return merged_batches(self.moments, [self.moments, *batches])

    def learn(self, batches: Sequence[Batch], evaluation: Batch | None = None) -> None:
        """Takes `batches` in, and fixes the moments of an `evaluation` for all later ones."""
        with self._lock:
            self.moments, self.evaluation = self.after(batches), dict(evaluation or self.evaluation)

    def of_evaluation(self, scores: Mapping[str, Tensor]) -> Batch:
        """Those that evaluations use: known at the first one, or else its own, for which every process has to call."""
        if self.evaluation:
            return dict(self.evaluation)
        if all(moments.count for moments in self.moments.values()):
            return dict(self.moments)
        own = merged_batches(self.moments, self.batches(scores))
        return {name: moments if moments.count else own[name] for name, moments in self.moments.items()}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Name -> count, mean and m2, as JSON values."""
        return {name: asdict(moments) for name, moments in self.moments.items()}

    def load_state_dict(self, state: Any, evaluation: Any = None) -> None:
        """Restores moments, and those of evaluations, in the form of `state_dict`; InputError changes nothing."""
        loaded = self._checked(state)
        loaded_evaluation = self._checked(evaluation) if evaluation else {}
        with self._lock:
            self.moments, self.evaluation = loaded, loaded_evaluation

    def _checked(self, state: Any) -> Batch:
        if not isinstance(state, Mapping) or state.keys() != self.moments.keys():
            found = ", ".join(map(str, state)) if isinstance(state, Mapping) else repr(state)
            step = "load the state of a reward with the same components and normalization"
            raise InputError(f"statistics of {', '.join(self.moments) or 'no reward'}", found or "none", step)
        for name, values in state.items():
            numbers = values if isinstance(values, Mapping) else {}
            finite = all(isinstance(value, int | float) and math.isfinite(value) for value in numbers.values())
            if set(numbers) != {"count", "mean", "m2"} or not finite or min(numbers["count"], numbers["m2"]) < 0:
                expected = f"count, mean and m2 of reward {name!r} as finite numbers"
                raise InputError(expected, repr(values), "load what state_dict() gave")
        return {name: Moments(**state[name]) for name in self.moments}
