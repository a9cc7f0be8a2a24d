"""Calls reward functions, any callables in TRL's protocol, and adds them up. A failure never becomes a number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.input_checks import reward_name
from trl_rewards_plugin.ppo.policy.prompts import Prompt, quoted


class RewardError(RuntimeError):
    """A reward raised, or returned the wrong number of values or one that is not a finite number."""


@dataclass(frozen=True)
class Scored:
    """Rewards of one batch of completions."""

    total: Tensor  # (B,) float32, weighted sum over rewards; one that returns None for a completion is left out
    # To log: `rewards/<name>/mean` and `/std` (of n - 1) of every reward, as in TRL, and what these logged.
    metrics: dict[str, float] = field(default_factory=dict)
    # name -> B values: prompt, completion, every reward, and what the rewards passed to `log_extra`.
    table: dict[str, list[Any]] = field(default_factory=dict)
    by_reward: Tensor | None = None  # (B, K) float32 of each reward, NaN where it returned None


def score_completions(
    reward_funcs: Sequence[Callable[..., Any]],
    weights: Sequence[float],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    *,
    completion_ids: Sequence[list[int]],
    columns: dict[str, list[Any]],
    trainer_state: Any,
    may_be_missing: bool = False,
) -> Scored:
    """Scores B >= 1 completions by K rewards, each called as TRL calls it.

    Where no reward gave a score the total is NaN, if it `may_be_missing`, and else an error. A RewardError names the
    reward, the steps done, and the prompt and completion that it was about.
    """
    metrics: dict[str, float] = {}
    logged: dict[str, list[Any]] = {}
    shaped = as_completions(completions, prompts)

    def place(row: int) -> str:
        steps = "" if trainer_state is None else f" after {trainer_state.global_step} steps"
        return f"{steps} for the completion {completions[row]!r} to the prompt {quoted(prompts[row])}"

    arguments = {
        **{name: values for name, values in columns.items() if name not in ("prompt", "completion")},
        "prompts": list(prompts),
        "completions": shaped,
        "completion_ids": list(completion_ids),
        "trainer_state": trainer_state,
        "log_metric": metrics.__setitem__,
        "log_extra": lambda column, entries: logged.__setitem__(column, list(entries)),
    }
    scores = {reward_name(reward): _ask(reward, arguments, place) for reward in reward_funcs}
    table: dict[str, list[Any]] = {"prompt": list(prompts), "completion": list(shaped)}
    for name, values in scores.items():
        given = values[~values.isnan()]
        if len(given):  # a mean over nothing would poison the log's average
            metrics.setdefault(f"rewards/{name}/mean", torch.nanmean(values).item())
        if len(given) > 1:
            metrics.setdefault(f"rewards/{name}/std", given.std().item())
        table[name] = [None if math.isnan(value) else value for value in values.tolist()]
    for column, entries in logged.items():
        if len(entries) != len(completions):
            raise RewardError(f"log_extra({column!r}) got {len(entries)} values for {len(completions)} completions")
    stacked = torch.stack(list(scores.values()), dim=1)
    unscored = stacked.isnan().all(dim=1)
    if unscored.any() and not may_be_missing:
        raise RewardError(f"no reward gave a score{place(int(unscored.nonzero()[0]))}: all returned None or NaN")
    # `reward_weights`; the weights inside of a combined reward are its own matter (rewards/combining/).
    total = torch.nansum(stacked * torch.tensor(list(weights)), dim=1).masked_fill(unscored, math.nan)
    return Scored(total, metrics, {**table, **logged}, stacked)


def as_completions(texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Any]:
    """Texts as TRL has completions: one assistant message each where the prompts are conversations."""
    conversational = bool(prompts) and not isinstance(prompts[0], str)
    return [[{"role": "assistant", "content": text}] for text in texts] if conversational else list(texts)


def with_held_out(scored: Scored, judged: Scored) -> Scored:
    """`scored`, and beside it what a held-out reward gave the same completions: its mean, its parts, its columns."""
    scored_ones = judged.total[~judged.total.isnan()]
    metrics = {"held_out_reward": scored_ones.mean().item()} if len(scored_ones) else {}
    metrics |= {f"held_out_{name}": value for name, value in judged.metrics.items()}
    _prompt, _completion, (_name, total), *parts = judged.table.items()
    columns = {"held_out_reward": total, **{f"held_out_{name}": values for name, values in parts}}
    return replace(scored, metrics={**scored.metrics, **metrics}, table={**scored.table, **columns})


def less_eos_penalty(scores: Tensor, ended: Tensor, penalty: float | None) -> Tensor:
    """Scores (B,) of responses, less `missing_eos_penalty` where one has no EOS: `ended` (B,) bool is False there."""
    return scores if penalty is None else torch.where(ended.to(scores.device), scores, scores - penalty)


def _ask(reward: Callable[..., Any], arguments: dict[str, Any], place: Callable[[int], str]) -> Tensor:
    """One reward's values of B completions as a float32 tensor, None as NaN."""
    name, count = reward_name(reward), len(arguments["completions"])
    try:
        values = reward(**arguments)
    except Exception as error:
        called = f"it was called on {count} completions, the first{place(0)}"
        raise RewardError(f"reward {name!r} raised {type(error).__name__}: {error}; {called}") from error
    values = values.tolist() if isinstance(values, Tensor) else values
    try:
        numbers = [math.nan if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise RewardError(f"reward {name!r} must return one float or None per completion, got {values!r}") from error
    if len(numbers) != count:
        raise RewardError(f"reward {name!r} returned {len(numbers)} values for {count} completions")
    scores = torch.tensor(numbers, dtype=torch.float32)
    if scores.isinf().any():  # also what only float32 cannot hold
        row = int(scores.isinf().nonzero()[0])
        raise RewardError(f"reward {name!r} returned {numbers[row]}{place(row)}")
    return scores
