"""Combination: how the raw scores of K named rewards become one total a text.

The steps, in this order: normalise each reward's scores, clip them, weigh them, aggregate. The maths of each step is
in normalize.py, combine.py and schedule.py; here are the settings, their checks, and what a failure says.
Leaves out: where scores come from, and when running statistics are learnt (multi.py).
"""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.combine import geometric_mean, minimum, weighted_mean, weighted_sum
from trl_rewards_plugin.rewards.names import did_you_mean, shortened
from trl_rewards_plugin.rewards.normalize import Moments, clipped, rescaled, z_scores
from trl_rewards_plugin.rewards.schedule import interpolated

AGGREGATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    function.__name__: function for function in (weighted_sum, weighted_mean, minimum, geometric_mean)
}
ZSCORE = "zscore"

_SLACK = 1e-6
"""How far float rounding may carry a probability out of [0, 1]."""


@dataclass(frozen=True)
class Combination:
    """Settings for K rewards, checked when made. For their meaning see `MultiClassifierReward`.

    Attributes:
        names: K names.
        weights: K finite floats.
        aggregation: A key of AGGREGATIONS.
        normalization: Name -> "zscore" or {"mean": m, "scale": s}; a reward without entry is not normalised.
        clip: Name -> (low, high).
        weight_schedule: Name -> {progress: factor}.
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
        """The settings as the user gave them, in one form.

        Raises:
            InputError: one that does not fit; nothing is loaded for it.
        """
        if aggregation not in AGGREGATIONS:
            raise InputError(
                f"aggregation one of {', '.join(AGGREGATIONS)}",
                repr(aggregation),
                f"{did_you_mean(aggregation, AGGREGATIONS)}use one of these",
            )
        made = cls(
            tuple(names),
            tuple(checked_weights(weights, len(names))),
            aggregation,
            _by_name("normalization", normalization, names, _checked_normalization),
            _by_name("clip", clip, names, _checked_clip),
            _by_name("weight_schedule", weight_schedule, names, _checked_schedule, for_all=False),
        )
        made._check_aggregation()
        return made

    def _check_aggregation(self) -> None:
        if self.aggregation == "weighted_sum":
            return
        if not any(self.weights):
            raise InputError(f"a weight other than 0 for {self.aggregation}", f"{list(self.weights)}", "raise one")
        if self.aggregation != "minimum" and min(self.weights) < 0:
            raise InputError(
                f"weights of at least 0 for {self.aggregation}",
                f"{list(self.weights)}",
                "use aggregation='weighted_sum' for a penalty, or score the opposite label",
            )
        if self.aggregation == "geometric_mean" and ZSCORE in self.normalization.values():
            raise InputError(
                "probabilities for geometric_mean",
                "normalization='zscore', which makes other numbers of them",
                "leave normalization out, or use another aggregation",
            )

    @property
    def learnt(self) -> list[str]:
        """Names of the rewards whose running statistics are used."""
        return [name for name in self.names if self.normalization.get(name) == ZSCORE]

    def total(
        self, scores: Tensor, moments: Mapping[str, Moments], progress: float | None, texts: Sequence[str]
    ) -> Tensor:
        """Totals (N,) of raw scores (N, K).

        Args:
            scores: NaN where a reward gave none.
            moments: Running statistics of each name in `learnt`.
            progress: How far training is, in [0, 1]; None weighs without schedule.
            texts: The N texts, for the errors.

        Raises:
            InputError: geometric_mean of something that is no probability; reward and text are named.
            RuntimeError: the total of a text is infinite.
        """
        columns = [self._prepared(name, scores[:, k], moments, texts) for k, name in enumerate(self.names)]
        prepared = torch.stack(columns, dim=1)
        total = AGGREGATIONS[self.aggregation](prepared, torch.tensor(self.weights_at(progress)))
        # Finite scores can still overflow in a product or a sum; inf - inf would pass for a missing score.
        broken = total.isinf() | (total.isnan() & ~self._unscored(prepared, progress))
        if broken.any():
            first = int(broken.nonzero()[0])
            parts = ", ".join(f"{name} {scores[first, k].item():g}" for k, name in enumerate(self.names))
            raise RuntimeError(
                f"the total reward overflows to {total[first].item()} for {shortened(texts[first])}: {parts}, weights "
                f"{list(self.weights)}"
            )
        return total

    def weights_at(self, progress: float | None) -> list[float]:
        """The K weights at this point of training; those that were given where `progress` is None."""
        if progress is None:
            return list(self.weights)
        factors = [
            interpolated(self.weight_schedule[name], progress) if name in self.weight_schedule else 1.0
            for name in self.names
        ]
        return [weight * factor for weight, factor in zip(self.weights, factors, strict=True)]

    def _prepared(self, name: str, scores: Tensor, moments: Mapping[str, Moments], texts: Sequence[str]) -> Tensor:
        """One reward's scores (N,), normalised and clipped."""
        how = self.normalization.get(name)
        if how == ZSCORE:
            scores = z_scores(scores, moments[name])
        elif how is not None:
            scores = rescaled(scores, how["mean"], how["scale"])
        if name in self.clip:
            scores = clipped(scores, *self.clip[name])
        if self.aggregation == "geometric_mean":
            outside = (scores < -_SLACK) | (scores > 1 + _SLACK)
            if outside.any():
                first = int(outside.nonzero()[0])
                raise InputError(
                    f"a probability in [0, 1] from reward {name!r} for geometric_mean",
                    f"{scores[first].item()} for {shortened(texts[first])}",
                    "use score_type='probability' for a classifier, normalization and clip for another reward",
                )
            scores = scores.clamp(0.0, 1.0)
        return scores

    def _unscored(self, prepared: Tensor, progress: float | None) -> Tensor:
        """(N,), True where a text has no score that counts, so that its total is rightly NaN."""
        counts = torch.ones(len(self.names), dtype=torch.bool)
        if self.aggregation != "weighted_sum":
            counts = torch.tensor(self.weights_at(progress)) != 0
        return (prepared.isnan() | ~counts).all(dim=1)

    def settings(self, name: str) -> dict[str, Any]:
        """What a reward file says of this reward beside its weight; only what is set, as YAML values."""
        found: dict[str, Any] = {}
        if name in self.normalization:
            how = self.normalization[name]
            found["normalization"] = how if how == ZSCORE else dict(how)
        if name in self.clip:
            found["clip"] = list(self.clip[name])
        if name in self.weight_schedule:
            found["weight_schedule"] = dict(self.weight_schedule[name])
        return found


def checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """`count` finite floats; 1.0 each where `weights` is None.

    Raises:
        InputError: another count, or a weight that is no finite number.
    """
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
    return [float(weight) for weight in found]


def _by_name(
    what: str, given: Any, names: Sequence[str], check: Callable[[str, Any], Any], *, for_all: bool = True
) -> dict[str, Any]:
    """`given`, one value for every reward or a dict by name, as a dict by name without the Nones."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if not for_all:
            raise InputError(f"{what} as a dict by reward name", repr(given), f"one or more of {', '.join(names)}")
        return {name: check(what, given) for name in names}
    for name in given:
        if name not in names:
            raise InputError(
                f"{what} for rewards of this combination, {', '.join(names)}",
                repr(name),
                f"{did_you_mean(name, names)}give {what} as a dict by reward name",
            )
    return {name: check(f"{what} of {name!r}", given[name]) for name in names if given.get(name) is not None}


def _checked_normalization(what: str, value: Any) -> Any:
    if value == ZSCORE:
        return ZSCORE
    if isinstance(value, Mapping) and set(value) == {"mean", "scale"} and all(map(_is_finite, value.values())):
        mean, scale = float(value["mean"]), float(value["scale"])
        if scale > 0:
            return {"mean": mean, "scale": scale}
    raise InputError(
        f"{what} as {ZSCORE!r}, or as {{'mean': m, 'scale': s}} with finite m and s above 0",
        repr(value),
        f"{did_you_mean(value, [ZSCORE])}for example {{'reward name': {ZSCORE!r}}}",
    )


def _checked_clip(what: str, value: Any) -> tuple[float, float]:
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        # One side may be open.
        if all(_is_number(end) and not math.isnan(end) for end in value) and low < high:
            return float(low), float(high)
    raise InputError(f"{what} as (low, high) with low below high", repr(value), "for example (-3.0, 3.0)")


def _checked_schedule(what: str, value: Any) -> dict[float, float]:
    if isinstance(value, Mapping) and value:
        numbers = all(map(_is_finite, [*value, *value.values()]))
        if numbers and all(0 <= place <= 1 for place in value) and all(factor >= 0 for factor in value.values()):
            return {float(place): float(factor) for place, factor in sorted(value.items())}
    raise InputError(
        f"{what} as {{progress: factor}}, progress from 0 to 1, factors of at least 0",
        repr(value),
        "for example {0.0: 0.0, 0.5: 1.0}, which brings the weight in over the first half of training",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
