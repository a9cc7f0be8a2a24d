"""What a run reports of itself: statistics of rollouts and their means, completions, alarms, episodes, epochs."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.checkpoints.state import RunState
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.distributed import weighted_means
from trl_rewards_plugin.ppo.maths.masking import Reduce, alone, as_precise, masked_moments
from trl_rewards_plugin.ppo.monitoring.alarms import AlarmMonitor
from trl_rewards_plugin.ppo.monitoring.completions import CompletionLog
from trl_rewards_plugin.ppo.rollout import Rollout, UpdateBatch


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
        counted = {"episodes": self.episodes, "total_loss": self.total_loss}
        return {**counted, "epoch_scores": self._epoch_scores, "alarms": dict(self.alarms.times)}

    def own_metrics(self) -> dict[str, list[float]]:
        """The values since the last log that are this process's own."""
        return {name: list(values) for name, values in self._metrics.items()}

    def restore(self, state: RunState, metrics: Mapping[str, list[float]]) -> None:
        """Resumes from a checkpoint's state, with this process's metrics."""
        self.episodes, self._epoch_scores, self.total_loss = state.episodes, state.epoch_scores, state.total_loss
        self.alarms.times.update(state.alarms)
        self._metrics.update(metrics)


def rollout_statistics(
    rollout: Rollout,
    kl: Tensor,
    kl_coef: float,
    gather: Callable[[Tensor], Tensor] = alone,
    *,
    in_reward: bool = True,
    num_generations: int = 1,
) -> dict[str, float]:
    """What a rollout on all processes looked like before the update, under TRL's names.

    `objective/kl`, `non_score_reward` and `rlhf_reward` are means over responses of token sums, KL in nats; the
    entropy is a mean over tokens. Of several responses to a prompt, `frac_reward_zero_std` is the share with equal
    scores. `in_reward`: whether the penalty is part of the reward; in the loss it is no reward that was given.

    The rollout is this process's part, `kl` (B, T) its KL to the reference, in nats, 0 where the response mask is
    False, and `gather` joins rows (B, columns) of all processes.
    """
    mask = rollout.response_mask
    entropies = torch.where(mask, rollout.entropies, 0.0).sum(1)
    columns = [rollout.scores, kl.sum(1), entropies, rollout.ended, rollout.prompt_mask.sum(1), mask.sum(1)]
    rows = gather(torch.stack([column.float() for column in columns], dim=1))
    scores, kl, entropy, ended, prompt_tokens, tokens = rows.cpu().unbind(1)
    penalty = kl_coef * kl if in_reward else torch.zeros_like(kl)
    groups = scores.view(-1, num_generations)
    equal = (groups == groups[:, :1]).all(1).float().mean().item()
    return {
        **({"frac_reward_zero_std": equal} if num_generations > 1 else {}),
        "objective/scores": scores.mean().item(),
        "objective/scores_std": scores.std(correction=0).item(),
        "objective/kl": kl.mean().item(),
        "objective/kl_coef": kl_coef,
        "objective/entropy": (entropy.sum() / tokens.sum()).item(),
        "objective/non_score_reward": 0.0 - penalty.mean().item(),
        "objective/rlhf_reward": (scores - penalty).mean().item(),
        "val/num_eos_tokens": ended.sum().item(),
        "tokens/queries_len_mean": prompt_tokens.mean().item(),
        "tokens/responses_len_mean": tokens.mean().item(),
    }


def critic_statistics(batch: UpdateBatch, reduce: Reduce = alone) -> dict[str, float]:
    """How well the values predicted the returns, over the tokens of all processes, under the classic names.

    val/error         = mean of (value - return)^2
    val/var_explained = 1 - val/error / variance of the returns; 1 is perfect, 0 no better than a constant
    """
    mask = batch.response_mask
    count, _, squares = masked_moments(batch.returns, mask, reduce)
    errors = (as_precise(batch.values, mask) - as_precise(batch.returns, mask)) ** 2
    error, variance = (torch.stack([reduce(errors.sum()), squares]) / count.clamp(min=1)).tolist()
    return {"val/error": error, "val/var_explained": 1 - error / variance if variance > 1e-12 else float("nan")}
