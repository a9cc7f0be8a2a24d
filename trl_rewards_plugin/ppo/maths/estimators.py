"""The table of advantage estimators: config choices, checks, help and messages are made from it.

A new estimator is a function in advantages.py and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.advantages import gae, group_relative, leave_one_out, reward_to_go


@dataclass(frozen=True)
class Estimator:
    """One line of the table. `function`, of advantages.py, is called with

    rewards (B, T), values (B, T), mask (B, T), gamma, lam -> advantages and returns, where it needs a critic;
    totals (B,), num_generations -> (B,), where it compares responses;
    rewards (B, T), mask (B, T), gamma -> (B, T), otherwise.
    """

    function: Callable[..., Any]
    summary: str  # for `--help`
    needs_critic: bool = False  # it reads values
    compares_responses: bool = False  # it judges whole responses against the others to the same prompt
    whitens_by_default: bool = False  # `whiten_advantages` where that is unset
    scales: bool = False  # it takes `scale_rewards` and `reduce`, too


ESTIMATORS = {
    "gae": Estimator(gae, "PPO's, with a critic", needs_critic=True, whitens_by_default=True),
    "rloo": Estimator(leave_one_out, "against the mean of the prompt's other responses", compares_responses=True),
    "grpo": Estimator(group_relative, "against the prompt's responses, scaled", compares_responses=True, scales=True),
    "reinforce": Estimator(reward_to_go, "reward to go, without a critic", whitens_by_default=True),
}


def estimate_advantages(
    name: str,
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    num_generations: int,
    **scaling: Any,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T) by the named estimator; without a critic the returns are the advantages.

    Args:
        rewards, values: (B, T).
        mask: (B, T), True on a prefix of every row.
        num_generations: responses per prompt, side by side.
        scaling: `scale_rewards` and `reduce`, for those that scale.
    """
    estimator = ESTIMATORS[name]
    if estimator.needs_critic:
        advantages, returns = estimator.function(rewards, values, mask, gamma=gamma, lam=lam)
        return advantages, returns
    if estimator.compares_responses:
        per_response = estimator.function(rewards.sum(1), num_generations, **(scaling if estimator.scales else {}))
        advantages = torch.where(mask, per_response.unsqueeze(1), torch.zeros_like(rewards))
    else:
        advantages = estimator.function(rewards, mask, gamma=gamma)
    return advantages, advantages


def names_of(condition: Callable[[Estimator], bool]) -> str:
    """The estimators that meet a condition, as a list for people: "rloo and grpo"."""
    *first, last = [name for name, estimator in ESTIMATORS.items() if condition(estimator)]
    return f"{', '.join(first)} and {last}" if first else last
