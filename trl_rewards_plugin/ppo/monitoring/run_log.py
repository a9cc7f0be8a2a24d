"""What a run reports of itself: means of metrics, completions, alarms, episodes and the mean reward of each epoch.

Leaves out: evaluation, and where logs go (the Trainer's callbacks).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from trl_rewards_plugin.ppo.checkpoints.state import RunState
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.distributed import weighted_means
from trl_rewards_plugin.ppo.monitoring.alarms import AlarmMonitor
from trl_rewards_plugin.ppo.monitoring.completions import CompletionLog


class RunLog:
    """The log of one training run; `decode` is the tokenizer's, and the main process prints and writes."""

    def __init__(self, args: Seq2SeqPPOConfig, decode: Callable[..., Any]):
        self.completions = CompletionLog(args)
        self.alarms = AlarmMonitor(args, decode)
        self.episodes = 0  # responses trained on so far, on all processes
        # The sum over rollouts of their mean loss; None after a resume from a checkpoint without it.
        self.total_loss: float | None = 0.0
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self._epoch_scores = (0.0, 0)  # sum and count of this epoch's scores

    def add_metrics(self, values: Mapping[str, float]) -> None:
        """Numbers whose means since the last log are logged next."""
        for name, value in values.items():
            self._metrics[name].append(value)

    def add_rollout(self, stats: Mapping[str, float], scores: Tensor) -> None:
        """The statistics of a rollout that was trained on, and its scores (episodes,) on all processes."""
        self.episodes += len(scores)
        if self.total_loss is not None:
            self.total_loss += stats.get("loss/total_avg", 0.0)
        total, count = self._epoch_scores
        self._epoch_scores = (total + scores.sum().item(), count + len(scores))
        self.add_metrics(stats)

    def take_means(self) -> dict[str, float]:
        """Means over the metrics of all processes since the last time, and the episode count."""
        parts = [(len(values), {name: sum(values) / len(values)}) for name, values in self._metrics.items()]
        self._metrics.clear()
        return {"episode": self.episodes, **weighted_means(parts)}

    def take_epoch_reward(self) -> float | None:
        """Mean score of the rollouts since the last time; None without any."""
        total, count = self._epoch_scores
        self._epoch_scores = (0.0, 0)
        return total / count if count else None

    def counters(self) -> dict[str, Any]:
        """The fields of `RunState` that are the log's and the same on every process."""
        return {
            "episodes": self.episodes,
            "total_loss": self.total_loss,
            "epoch_scores": self._epoch_scores,
            "alarms": dict(self.alarms.times),
        }

    def own_metrics(self) -> dict[str, list[float]]:
        """The values since the last log that are this process's own."""
        return {name: list(values) for name, values in self._metrics.items()}

    def restore(self, state: RunState, metrics: Mapping[str, list[float]]) -> None:
        """Resumes from a checkpoint's state, with this process's metrics."""
        self.episodes, self._epoch_scores, self.total_loss = state.episodes, state.epoch_scores, state.total_loss
        self.alarms.times.update(state.alarms)
        self._metrics.update(metrics)
