"""Combination: how the raw scores of K named rewards become one total per text.

In this order: each reward's scores are normalised (running_statistics.py) and clipped, the floor takes the place of
those behind a gate (style counts where grammar holds), and they are weighted and aggregated (aggregate.py).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.combining.aggregate import AGGREGATIONS
from trl_rewards_plugin.rewards.combining.combination_settings import FORMS, ZSCORE, checked_settings
from trl_rewards_plugin.rewards.combining.running_statistics import Moments, rescaled, z_scores
from trl_rewards_plugin.rewards.texts import shortened

_SLACK = 1e-6  # how far float rounding may carry a probability out of [0, 1]


def training_progress(trainer_state: Any) -> float:
    """global_step / max_steps of a `transformers.TrainerState`, at most 1; InputError where no training has begun."""
    step, steps = getattr(trainer_state, "global_step", None), getattr(trainer_state, "max_steps", None)
    if step is None or steps is None:
        how = "GRPO, RLOO and Seq2SeqPPOTrainer pass it; for scoring use score(), which needs none"
        raise InputError("trainer_state=, which weight_schedule and constraints read", repr(trainer_state), how)
    if steps <= 0:
        how = "call the reward from within training"
        raise InputError("a trainer_state with max_steps above 0", f"max_steps={steps}", how)
    return float(min(step / steps, 1.0))


@dataclass(frozen=True)
class Combination:
    """Settings for K rewards; dicts by name. For their meaning see `MultiClassifierReward`."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    aggregation: str
    disagreement_coef: float | None  # of mean_minus_std; None for 1
    normalization: dict[str, Any]  # "zscore" or {"mean": m, "scale": s}; a reward without entry is not normalised
    clip: dict[str, tuple[float, float]]
    weight_schedule: dict[str, dict[float, float]]  # {progress: factor}, in the order of progress
    only_if: dict[str, dict[str, float]]  # {gating reward: minimum raw score}
    floor: dict[str, float]  # in place of the normalised and clipped score of a text behind the gate; else 0
    constraints: dict[str, dict[str, float]]  # {"min": m, "max": m}, of the mean score; the weight is 0

    @classmethod
    def checked(cls, names: Sequence[str], *settings: Any, **more: Any) -> "Combination":
        """Of settings as the user gave them: see `checked_settings`, which refuses what does not fit."""
        return cls(tuple(names), **checked_settings(names, *settings, **more))

    @property
    def learnt(self) -> list[str]:
        """Names of the rewards whose running statistics are used."""
        return [name for name in self.names if self.normalization.get(name) == ZSCORE]

    def total(
        self,
        scores: Tensor,
        moments: Mapping[str, Moments],
        weights: Sequence[float],
        passing: Mapping[str, Tensor],
        texts: Sequence[str],
    ) -> Tensor:
        """Totals (N,) of raw scores (N, K), NaN where a reward gave none.

        RuntimeError for an infinite total, InputError for geometric_mean of a score that is no probability.
        """
        columns = [self._prepared(name, scores[:, k], moments, texts) for k, name in enumerate(self.names)]
        for k, name in enumerate(self.names):
            if name in passing:  # NaN, no score, stays NaN behind the gate too
                columns[k] = torch.where(passing[name] | columns[k].isnan(), columns[k], self.floor.get(name, 0.0))
        prepared, factors = torch.stack(columns, dim=1), torch.tensor(weights)
        further = () if self.disagreement_coef is None else (self.disagreement_coef,)
        total = AGGREGATIONS[self.aggregation](prepared, factors, *further)
        # Finite scores can still overflow in a product or a sum; inf - inf would pass for a missing score.
        counts = (factors != 0) | (self.aggregation == "weighted_sum")
        unscored = (prepared.isnan() | ~counts).all(dim=1)
        broken = total.isinf() | (total.isnan() & ~unscored)
        if broken.any():
            first = int(broken.nonzero()[0])
            parts = ", ".join(f"{name} {scores[first, k].item():g}" for k, name in enumerate(self.names))
            found = f"{total[first].item()} for {shortened(texts[first])}: {parts}, weights {list(self.weights)}"
            raise RuntimeError(f"the total reward overflows to {found}")
        return total

    def passing(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gated reward -> texts that pass, (N,) bool: each gating raw score is there and at least the threshold."""
        reached = {name: [raw[other] >= least for other, least in gate.items()] for name, gate in self.only_if.items()}
        return {name: torch.stack(each).all(dim=0) for name, each in reached.items()}

    def weights_at(self, progress: float | None) -> list[float]:
        """The K weights at this point of training; those that were given where `progress` is None."""
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
            found = f"{scores[first].item()} for {shortened(texts[first])}"
            step = "use score_type='probability' for a classifier, normalization and clip for another reward"
            raise InputError(f"a probability in [0, 1] from reward {name!r} for geometric_mean", found, step)
        return scores.clamp(0.0, 1.0)

    def settings(self, name: str) -> dict[str, Any]:
        """What a reward file says of this reward beside its weight; only what is set, as YAML values."""
        found = {key: copy.copy(getattr(self, key)[name]) for key in FORMS if name in getattr(self, key)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
