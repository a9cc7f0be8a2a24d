"""Combination: how the raw scores of K named rewards become one total per text.

The steps, in this order: normalise each reward's scores, clip them, weigh them, aggregate. The maths of each step is
in normalize.py, schedule.py and aggregate.py, the form of each setting in combination_settings.py; here are which
settings go together, and what a failure says.
Leaves out: where scores come from, and when running statistics are learnt (multi.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.combining.aggregate import geometric_mean, minimum, weighted_mean, weighted_sum
from trl_rewards_plugin.rewards.combining.combination_settings import (
    ZSCORE,
    by_name,
    checked_clip,
    checked_normalization,
    checked_schedule,
    checked_weights,
)
from trl_rewards_plugin.rewards.combining.normalize import Moments, clipped, rescaled, z_scores
from trl_rewards_plugin.rewards.combining.schedule import interpolated
from trl_rewards_plugin.rewards.texts import shortened

AGGREGATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    function.__name__: function for function in (weighted_sum, weighted_mean, minimum, geometric_mean)
}

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
            by_name("normalization", normalization, names, checked_normalization),
            by_name("clip", clip, names, checked_clip),
            by_name("weight_schedule", weight_schedule, names, checked_schedule, for_all=False),
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
                "normalization='zscore', which turns them into other numbers",
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
