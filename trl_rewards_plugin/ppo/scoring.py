"""Calls reward functions in TRL's protocol and adds them up. A reward that fails never becomes a number.

Leaves out: what a reward is made of; any callable of the protocol serves.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.checks import reward_name
from trl_rewards_plugin.ppo.prompts import Prompt


class RewardError(RuntimeError):
    """A reward raised, returned the wrong number of values, or something that is no finite number."""


@dataclass(frozen=True)
class Scored:
    """Rewards of one batch of completions.

    Attributes:
        total: (B,) float32, weighted sum over rewards; a reward that says None of a completion is left out of it.
        metrics: means to log: `rewards/<name>/mean` of every reward, as in TRL, and what the rewards logged.
    """

    total: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


def score_completions(
    reward_funcs: Sequence[Callable],
    weights: Sequence[float],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    *,
    completion_ids: Sequence[list[int]],
    columns: dict[str, list],
    trainer_state: Any,
) -> Scored:
    """Scores B completions by K rewards.

    Each reward is called as TRL calls it: by keyword with prompts, completions (text, or one assistant message each
    where the prompts are conversations), completion_ids, trainer_state, log_metric, and every further column.

    Raises:
        RewardError: names the reward and, where there is one, the offending completion.
    """
    metrics: dict[str, float] = {}
    conversational = bool(prompts) and not isinstance(prompts[0], str)
    shaped = [[{"role": "assistant", "content": text}] for text in completions] if conversational else completions
    extra = {name: values for name, values in columns.items() if name not in ("prompt", "completion")}
    scores = []
    for reward in reward_funcs:
        name = reward_name(reward)
        try:
            values = reward(
                prompts=list(prompts),
                completions=list(shaped),
                completion_ids=list(completion_ids),
                trainer_state=trainer_state,
                log_metric=metrics.__setitem__,
                **extra,
            )
        except Exception as error:
            raise RewardError(f"reward {name!r} raised {type(error).__name__}: {error}") from error
        scores.append(_checked(name, values, completions))
        if not scores[-1].isnan().all():  # a mean over nothing would poison the log's average
            metrics.setdefault(f"rewards/{name}/mean", torch.nanmean(scores[-1]).item())
    table = torch.stack(scores, dim=1)
    unscored = table.isnan().all(dim=1)
    if unscored.any():
        text = completions[int(unscored.nonzero()[0])]
        raise RewardError(f"no reward gave a score to the completion {text!r}: all returned None or NaN")
    total = torch.nansum(table * torch.tensor(list(weights)), dim=1)
    return Scored(total, metrics)


def _checked(name: str, values: Any, completions: Sequence[str]) -> Tensor:
    """One reward's values as a (B,) float32 tensor, None as NaN."""
    values = values.tolist() if isinstance(values, Tensor) else values
    try:
        numbers = [math.nan if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise RewardError(f"reward {name!r} must return one float or None a completion, got {values!r}") from error
    if len(numbers) != len(completions):
        raise RewardError(f"reward {name!r} returned {len(numbers)} values for {len(completions)} completions")
    for number, text in zip(numbers, completions, strict=True):
        if math.isinf(number):
            raise RewardError(f"reward {name!r} returned {number} for the completion {text!r}")
    return torch.tensor(numbers, dtype=torch.float32)
