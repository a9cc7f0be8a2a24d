"""Outcome: what one call of a combination found, before anything is learnt from it, and how a trainer is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trl_rewards_plugin.rewards.combining.running_statistics import Batch
from trl_rewards_plugin.rewards.scores import RewardScores


@dataclass(frozen=True)
class Outcome:
    """What a combination made of N texts.

    Attributes:
        scores: Total and components.
        batches: What its running statistics are to take in; empty where nothing is to be learnt.
        inner: Name -> the outcome of each combination within.
    """

    scores: RewardScores
    batches: list[Batch]
    inner: dict[str, "Outcome"]

    def log(self, columns: Mapping[str, Any], within: str = "") -> None:
        """Hands each component to the trainer's `log_metric` and `log_extra`, where `columns` has them.

        Args:
            within: What stands before a component's name: "<combination>/", so that no two share a column.
        """
        log_metric, log_extra = columns.get("log_metric"), columns.get("log_extra")
        for name, values in self.scores.components.items():
            # A mean over nothing is NaN and would poison the average of the logging step.
            if log_metric is not None and not values.isnan().all():
                log_metric(f"rewards/{within}{name}/mean", values.nanmean().item())
            if log_extra is not None:
                log_extra(f"{within}{name}", values.tolist())
        for name, outcome in self.inner.items():
            outcome.log(columns, f"{within}{name}/")
