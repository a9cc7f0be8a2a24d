"""What one rollout teaches: advantages, then epochs of clipped updates. Framework calls come in as arguments.

Leaves out: collecting the rollout, and the last optimizer step, which the host takes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.finite import check_gradients, gradient_norm
from trl_rewards_plugin.ppo.maths.advantages import gae, group_relative, leave_one_out, reward_to_go, token_rewards
from trl_rewards_plugin.ppo.maths.kl import token_kl
from trl_rewards_plugin.ppo.maths.losses import approximate_kl, policy_loss, value_loss
from trl_rewards_plugin.ppo.maths.masking import masked_sum, masked_whiten
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.rollout import Rollout


@dataclass(frozen=True)
class Host:
    """What the update needs of the training framework.

    Attributes:
        backward: runs the backward pass of a loss.
        step: clips gradients, takes an optimizer step and clears the gradients.
        clear: clears the gradients to None, so that the host's own step changes nothing.
        reduce: sums a tensor over processes.
        no_sync: a context in which gradients are accumulated without communication.
        autocast: the mixed-precision context of forward passes.
        world_size: number of processes; DDP averages gradients over them.
    """

    backward: Callable[[Tensor], None]
    step: Callable[[], None]
    clear: Callable[[], None]
    reduce: Callable[[Tensor], Tensor]
    no_sync: Callable[[], AbstractContextManager[Any]]
    autocast: Callable[[], AbstractContextManager[Any]]
    world_size: int = 1


@dataclass(frozen=True)
class Targets:
    """What the update aims at; every field is (B, T), 0 where the response mask is False."""

    kl: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor


def compute_targets(
    rollout: Rollout, args: Seq2SeqPPOConfig, kl_coef: float, reduce: Callable[[Tensor], Tensor] = lambda sums: sums
) -> Targets:
    """Token rewards, advantages and returns of a rollout, in the order of the paper (arXiv 2403.17031)."""
    mask = rollout.response_mask
    kl = token_kl(rollout.logprobs, rollout.ref_logprobs, args.kl_estimator)  # type: ignore[arg-type]
    kl = torch.where(mask, kl, torch.zeros_like(kl))
    rewards = token_rewards(rollout.scores, kl, mask, 0.0 if args.use_kl_loss else kl_coef)
    if args.whiten_rewards:
        rewards = masked_whiten(rewards, mask, shift_mean=False, reduce=reduce)
    advantages, returns = _advantages_and_returns(rewards, rollout.values, mask, args)
    if args.whiten_advantages:
        advantages = masked_whiten(advantages, mask, reduce=reduce)
    return Targets(kl, rewards, advantages, returns)


def _advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, args: Seq2SeqPPOConfig
) -> tuple[Tensor, Tensor]:
    """(B, T) each, by the config's estimator; where there is no critic the returns are the advantages."""
    if args.advantage_estimator == "gae":
        return gae(rewards, values, mask, gamma=args.gamma, lam=args.lam)
    if args.advantage_estimator == "reinforce":
        advantages = reward_to_go(rewards, mask, gamma=args.gamma)
    else:
        compare = {"rloo": leave_one_out, "grpo": group_relative}[args.advantage_estimator]
        of_responses = compare(rewards.sum(1), args.num_generations)
        advantages = torch.where(mask, of_responses.unsqueeze(1), torch.zeros_like(rewards))
    return advantages, advantages


@dataclass(frozen=True)
class Lesson:
    """What one update goes by.

    Attributes:
        args: the settings.
        rules: the distribution that the tokens were drawn from.
        kl_coef: weight of the KL penalty now.
        critic_only: the policy is left as it is, for critic warm-up.
    """

    args: Seq2SeqPPOConfig
    rules: TokenRules
    kl_coef: float
    critic_only: bool = False


def run_update(model: nn.Module, rollout: Rollout, targets: Targets, lesson: Lesson, host: Host) -> dict[str, float]:
    """`num_ppo_epochs` passes over the rollout in shuffled mini-batches.

    Every optimizer step but the last is taken here; the gradients of the last are left for the host. Where
    `early_stop_kl` ends the update, the mini-batch that showed it leaves no gradient behind.

    Returns:
        Means over mini-batches of the losses and diagnostics, under TRL's names; of the first mini-batch alone
        `val/ratio_first` and `val/sampling_gap`, the mean distance in nats of a token's log-probability now from the
        sampler's.
    """
    args = lesson.args
    history: list[dict[str, float]] = []
    stopped = False
    for rows in _mini_batches(len(rollout), args):
        if history:
            host.step()
        stats = _mini_batch_step(model, rollout, targets, rows, lesson, host)
        history.append(stats)
        stopped = args.early_stop_kl is not None and stats["policy/approxkl_avg"] > args.early_stop_kl
        if stopped:
            host.clear()
            break
    means = {name: sum(stats[name] for stats in history) / len(history) for name in history[0]}
    ratios = torch.tensor([stats["val/ratio"] for stats in history])
    means["val/ratio_var"] = ratios.var(correction=0).item()
    # Before the first step the policy has not moved: 1 and 0, unless responses are scored otherwise than sampled.
    means["val/ratio_first"], means["val/sampling_gap"] = (
        history[0][name] for name in ("val/ratio", "val/sampling_gap")
    )
    means["val/optimizer_steps"] = float(len(history) - stopped)
    return means


def _mini_batches(size: int, args: Seq2SeqPPOConfig) -> Iterator[Tensor]:
    """Row numbers of every mini-batch of every epoch, shuffled anew for each epoch."""
    for _ in range(args.num_ppo_epochs):
        yield from torch.randperm(size).tensor_split(min(args.num_mini_batches, size))


def _mini_batch_step(
    model: nn.Module,
    rollout: Rollout,
    targets: Targets,
    rows: Tensor,
    lesson: Lesson,
    host: Host,
) -> dict[str, float]:
    """Accumulates the gradient of one mini-batch over micro-batches that fit in memory; returns its statistics.

    The loss is a sum over tokens divided by the mini-batch's token count over all processes, so neither the split
    into micro-batches nor into processes changes it.
    """
    prompt_lengths, response_lengths = rollout.lengths[:, rows].unbind()
    tokens = host.reduce(torch.full((), float(response_lengths.sum()), device=rollout.scores.device)).clamp(min=1)
    # Rows of like length together: each micro-batch is cut to its own longest prompt.
    rows = rows[prompt_lengths.argsort(stable=True)]
    chunks = rows.split(lesson.args.micro_batch_size)
    sums = None
    for number, chunk in enumerate(chunks):
        with host.no_sync() if number < len(chunks) - 1 else nullcontext():
            loss, chunk_sums = _micro_batch_loss(model, rollout, targets, chunk, lesson, host)
            # DDP averages over processes; multiplying by their number makes that the sum that `tokens` divides.
            host.backward(loss / tokens * host.world_size)
        sums = chunk_sums if sums is None else {name: sums[name] + value for name, value in chunk_sums.items()}
    assert sums is not None  # tensor_split of a rollout with at least num_mini_batches rows leaves no empty one
    totals = host.reduce(torch.stack(list(sums.values()))) / tokens
    # Read at once: a GPU is waited for a single time, before the step that bad numbers must not reach.
    *means, norm = torch.cat([totals, gradient_norm(model, host.reduce).to(totals).view(1)]).tolist()
    stats = dict(zip(sums, means, strict=True))
    if not all(math.isfinite(value) for value in stats.values()):
        raise FloatingPointError(
            f"the update is not finite: {stats}; lower learning_rate, or look at the rewards of this rollout"
        )
    check_gradients(model, norm)
    return stats


def _micro_batch_loss(
    model: nn.Module,
    rollout: Rollout,
    targets: Targets,
    rows: Tensor,
    lesson: Lesson,
    host: Host,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss summed over the tokens of some rows, and token sums of the statistics."""
    args, part = lesson.args, rollout.select(rows)
    mask = part.response_mask
    there, width = rows.to(mask.device, non_blocking=True), mask.shape[1]
    advantages, returns = targets.advantages[there, :width], targets.returns[there, :width]
    with host.autocast():
        output = model(
            part.prompts,
            part.response_ids,
            lesson.rules,
            critic_only=lesson.critic_only,
        )
    pg_losses, pg_clipped = policy_loss(output.logprobs, part.logprobs, advantages, args.cliprange)
    loss = masked_sum(pg_losses, mask)
    sums = {
        "loss/policy_avg": loss.detach(),
        "policy/approxkl_avg": masked_sum(approximate_kl(output.logprobs, part.logprobs), mask),
        "policy/clipfrac_avg": masked_sum(pg_clipped.float(), mask),
        "policy/entropy_avg": masked_sum(output.entropies, mask),
        "val/ratio": masked_sum(torch.exp(output.logprobs - part.logprobs), mask),
        "val/sampling_gap": masked_sum((output.logprobs - part.sampled_logprobs).abs(), mask),
    }
    if args.use_kl_loss:
        kl_sum = masked_sum(token_kl(output.logprobs, part.ref_logprobs, "k3"), mask)
        loss = loss + lesson.kl_coef * kl_sum
        sums["loss/kl_avg"] = kl_sum
    if args.has_critic:
        vf_losses, vf_clipped = value_loss(output.values, part.values, returns, args.cliprange_value)
        vf_sum = masked_sum(vf_losses, mask)
        loss = loss + args.vf_coef * vf_sum
        sums |= {"loss/value_avg": vf_sum, "val/clipfrac_avg": masked_sum(vf_clipped.float(), mask)}
    sums["loss/total_avg"] = loss
    return loss, {name: value.detach() for name, value in sums.items()}


def rollout_statistics(
    rollout: Rollout, targets: Targets, kl_coef: float, gather: Callable[[Tensor], Tensor] = lambda rows: rows
) -> dict[str, float]:
    """What a rollout looked like before it was learnt from, on all processes, under TRL's names.

    `objective/kl`, `non_score_reward` and `rlhf_reward` are means over responses of token sums, KL in nats; the
    entropy is a mean over tokens.

    Args:
        rollout, targets: this process's part.
        gather: joins rows (B, columns) of all processes; the identity on one.
    """
    mask = rollout.response_mask
    zeros = torch.zeros_like(rollout.logprobs)
    columns = [
        rollout.scores,
        targets.kl.sum(1),
        torch.where(mask, rollout.entropies, zeros).sum(1),
        rollout.ended,
        rollout.prompt_mask.sum(1),
        mask.sum(1),
    ]
    rows = gather(torch.stack([column.float() for column in columns], dim=1))
    scores, kl, entropy, ended, prompt_tokens, tokens = rows.cpu().unbind(1)
    return {
        "objective/scores": scores.mean().item(),
        "objective/scores_std": scores.std(correction=0).item(),
        "objective/kl": kl.mean().item(),
        "objective/kl_coef": kl_coef,
        "objective/entropy": (entropy.sum() / tokens.sum()).item(),
        "objective/non_score_reward": -kl_coef * kl.mean().item(),
        "objective/rlhf_reward": (scores - kl_coef * kl).mean().item(),
        "val/num_eos_tokens": ended.sum().item(),
        "tokens/queries_len_mean": prompt_tokens.mean().item(),
        "tokens/responses_len_mean": tokens.mean().item(),
    }


def critic_statistics(
    rollout: Rollout, targets: Targets, reduce: Callable[[Tensor], Tensor] = lambda sums: sums
) -> dict[str, float]:
    """How well the values foretold the returns, over the tokens of all processes, under the classic names.

    val/error         = mean of (value - return)^2
    val/var_explained = 1 - val/error / variance of the returns; 1 is perfect, 0 no better than a constant
    """
    mask = rollout.response_mask
    returns = targets.returns
    sums = [masked_sum(values, mask) for values in ((rollout.values - returns) ** 2, returns, returns**2)]
    error, mean, squares = (reduce(torch.stack(sums).double()) / reduce(mask.sum().double())).tolist()
    variance = squares - mean**2
    return {"val/error": error, "val/var_explained": 1 - error / variance if variance > 1e-12 else float("nan")}
