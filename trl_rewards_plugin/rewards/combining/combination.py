"""Combination: how the raw scores of K named rewards become one total per text.

In this order: normalise each reward's scores (normalize.py), clip them, weigh them, aggregate (aggregate.py). Leaves
out: where scores come from, and when statistics are learnt.
"""

import copy
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.combining.aggregate import geometric_mean, minimum, weighted_mean, weighted_sum
from trl_rewards_plugin.rewards.combining.normalize import Moments, rescaled, z_scores
from trl_rewards_plugin.rewards.texts import shortened

AGGREGATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    function.__name__: function for function in (weighted_sum, weighted_mean, minimum, geometric_mean)
}

ZSCORE = "zscore"

_SLACK = 1e-6
"""How far float rounding may carry a probability out of [0, 1]."""


def training_progress(trainer_state: Any) -> float:
    """global_step / max_steps of a `transformers.TrainerState`, in [0, 1]; InputError without one of a training."""
    step, steps = getattr(trainer_state, "global_step", None), getattr(trainer_state, "max_steps", None)
    if step is None or steps is None:
        how = "GRPO, RLOO and Seq2SeqPPOTrainer pass it; for scoring use score(), which weighs without schedule"
        raise InputError("trainer_state=, which weight_schedule reads", repr(trainer_state), how)
    if steps <= 0:
        how = "call the reward from within training"
        raise InputError("a trainer_state with max_steps above 0", f"max_steps={steps}", how)
    return float(min(step / steps, 1.0))


@dataclass(frozen=True)
class Combination:
    """Settings for K rewards, checked when made. For their meaning see `MultiClassifierReward`.

    Attributes:
        normalization: Name -> "zscore" or {"mean": m, "scale": s}; a reward without entry is not normalised.
        clip: Name -> (low, high).
        weight_schedule: Name -> {progress: factor}, in the order of progress.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    aggregation: str
    normalization: dict[str, Any]
    clip: dict[str, tuple[float, float]]
    weight_schedule: dict[str, dict[float, float]]

    @classmethod
    def checked(
        cls,
        names: Sequence[str],
        weights: Sequence[float] | None,
        aggregation: str,
        normalization: Any,
        clip: Any,
        weight_schedule: Any,
    ) -> "Combination":
        """The settings as the user gave them, in one form; InputError for one that does not fit."""
        if aggregation not in AGGREGATIONS:
            known = ", ".join(AGGREGATIONS)
            step = f"{did_you_mean(aggregation, AGGREGATIONS)}use one of these"
            raise InputError(f"aggregation one of {known}", repr(aggregation), step)
        made = cls(
            tuple(names),
            tuple(_weights(weights, len(names))),
            aggregation,
            _by_name("normalization", normalization, names, _normalization),
            _by_name("clip", clip, names, _clip),
            _by_name("weight_schedule", weight_schedule, names, _schedule, for_all=False),
        )
        if aggregation in ("weighted_mean", "geometric_mean") and min(made.weights) < 0:
            step = "use aggregation='weighted_sum' for a penalty, or score the opposite label"
            raise InputError(f"weights of at least 0 for {aggregation}", f"{list(made.weights)}", step)
        if aggregation == "geometric_mean" and ZSCORE in made.normalization.values():
            found = "normalization='zscore', which turns them into other numbers"
            step = "leave normalization out, or use another aggregation"
            raise InputError("probabilities for geometric_mean", found, step)
        return made

    @property
    def learnt(self) -> list[str]:
        """Names of the rewards whose running statistics are used."""
        return [name for name in self.names if self.normalization.get(name) == ZSCORE]

    def total(
        self, scores: Tensor, moments: Mapping[str, Moments], progress: float | None, texts: Sequence[str]
    ) -> Tensor:
        """Totals (N,) of raw scores (N, K) of N texts, NaN where a reward gave none.

        Args:
            moments: Running statistics of each name in `learnt`.
            progress: How far training is, in [0, 1]; None weighs without schedule.

        Raises:
            InputError: geometric_mean of something that is no probability.
            RuntimeError: the total of a text is infinite.
        """
        columns = [self._prepared(name, scores[:, k], moments, texts) for k, name in enumerate(self.names)]
        prepared, weights = torch.stack(columns, dim=1), torch.tensor(self.weights_at(progress))
        total = AGGREGATIONS[self.aggregation](prepared, weights)
        # Finite scores can still overflow in a product or a sum; inf - inf would pass for a missing score.
        counts = (weights != 0) | (self.aggregation == "weighted_sum")
        unscored = (prepared.isnan() | ~counts).all(dim=1)
        broken = total.isinf() | (total.isnan() & ~unscored)
        if broken.any():
            first = int(broken.nonzero()[0])
            parts = ", ".join(f"{name} {scores[first, k].item():g}" for k, name in enumerate(self.names))
            raise RuntimeError(
                f"the total reward overflows to {total[first].item()} for {shortened(texts[first])}: {parts}, weights "
                f"{list(self.weights)}"
            )
        return total

    def weights_at(self, progress: float | None) -> list[float]:
        """The K weights at this point of training; those that were given where `progress` is None.

        A schedule's factor is linear between its points, constant before the first and after the last.
        """
        weights = dict(zip(self.names, self.weights, strict=True))
        if progress is not None:
            for name, points in self.weight_schedule.items():
                weights[name] *= float(np.interp(progress, list(points), list(points.values())))
        return list(weights.values())

    def _prepared(self, name: str, scores: Tensor, moments: Mapping[str, Moments], texts: Sequence[str]) -> Tensor:
        """One reward's scores (N,), normalised and clipped; NaN stays NaN."""
        how = self.normalization.get(name)
        if how == ZSCORE:
            scores = z_scores(scores, moments[name])
        elif how is not None:
            scores = rescaled(scores, how["mean"], how["scale"])
        if name in self.clip:
            scores = scores.clamp(*self.clip[name])
        if self.aggregation != "geometric_mean":
            return scores
        outside = (scores < -_SLACK) | (scores > 1 + _SLACK)
        if outside.any():
            first = int(outside.nonzero()[0])
            raise InputError(
                f"a probability in [0, 1] from reward {name!r} for geometric_mean",
                f"{scores[first].item()} for {shortened(texts[first])}",
                "use score_type='probability' for a classifier, normalization and clip for another reward",
            )
        return scores.clamp(0.0, 1.0)

    def settings(self, name: str) -> dict[str, Any]:
        """What a reward file says of this reward beside its weight; only what is set, as YAML values."""
        given = {"normalization": self.normalization, "clip": self.clip, "weight_schedule": self.weight_schedule}
        found = {key: copy.copy(values[name]) for key, values in given.items() if name in values}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


# What a user may give, brought into one form. Each takes the setting's name for the message and its value, and raises
# InputError where it does not fit.


def _weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """`count` finite floats, not all 0; 1.0 each where `weights` is None."""
    if weights is None:
        return [1.0] * count
    if not isinstance(weights, Sequence):
        raise InputError("weights as a list of numbers, one for each reward", repr(weights), "for example [1.0, 0.5]")
    found = list(weights)
    if len(found) != count:
        raise InputError(f"{count} weights, one for each reward", f"{len(found)}: {found}", "give one weight a reward")
    for weight in found:
        if not _is_finite(weight):
            raise InputError("finite numbers as weights", repr(weight), "replace it; 0.0 only reports a component")
    if not any(found):
        raise InputError("a weight other than 0, since the total would be 0 for every text", f"{found}", "raise one")
    return [float(weight) for weight in found]


def _by_name(
    what: str, given: Any, names: Sequence[str], check: Callable[[str, Any], Any], *, for_all: bool = True
) -> dict[str, Any]:
    """`given`, a dict by name or (`for_all`) one value for every reward, checked, as a dict without the Nones."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if not for_all:
            raise InputError(f"{what} as a dict by reward name", repr(given), f"one or more of {', '.join(names)}")
        return {name: check(what, given) for name in names}
    for name in given:
        if name not in names:
            step = f"{did_you_mean(name, names)}give {what} as a dict by reward name"
            raise InputError(f"{what} for rewards of this combination, {', '.join(names)}", repr(name), step)
    return {name: check(f"{what} of {name!r}", given[name]) for name in names if given.get(name) is not None}


def _normalization(what: str, value: Any) -> Any:
    """ZSCORE, or a mean and a scale above 0 as floats."""
    if value == ZSCORE:
        return ZSCORE
    if isinstance(value, Mapping) and set(value) == {"mean", "scale"} and all(map(_is_finite, value.values())):
        mean, scale = float(value["mean"]), float(value["scale"])
        if scale > 0:
            return {"mean": mean, "scale": scale}
    expected = f"{what} as {ZSCORE!r}, or as {{'mean': m, 'scale': s}} with finite m and s above 0"
    step = f"{did_you_mean(value, [ZSCORE])}for example {{'reward name': {ZSCORE!r}}}"
    raise InputError(expected, repr(value), step)


def _clip(what: str, value: Any) -> tuple[float, float]:
    """(low, high) as floats; either may be infinite."""
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if all(_is_number(end) and not math.isnan(end) for end in value) and low < high:
            return float(low), float(high)
    raise InputError(f"{what} as (low, high) with low below high", repr(value), "for example (-3.0, 3.0)")


def _schedule(what: str, value: Any) -> dict[float, float]:
    """{progress: factor} as floats, in the order of progress."""
    if isinstance(value, Mapping) and value:
        numbers = all(map(_is_finite, [*value, *value.values()]))
        if numbers and all(0 <= place <= 1 for place in value) and all(factor >= 0 for factor in value.values()):
            return {float(place): float(factor) for place, factor in sorted(value.items())}
    expected = f"{what} as {{progress: factor}}, progress from 0 to 1, factors of at least 0"
    step = "for example {0.0: 0.0, 0.5: 1.0}, which brings the weight in over the first half of training"
    raise InputError(expected, repr(value), step)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
