"""What one rollout teaches: token rewards, advantages or ranks, then epochs of updates but for the last step."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from trl_rewards_plugin.ppo.acceleration.lower_precision import cast_together
from trl_rewards_plugin.ppo.acceleration.optimizer_step import GraphedStep
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.distributed import Framework
from trl_rewards_plugin.ppo.finite import check_gradients, gradient_norm
from trl_rewards_plugin.ppo.maths.advantages import estimate_advantages, leave_one_out, normalized_sum, token_rewards
from trl_rewards_plugin.ppo.maths.kl import token_kl
from trl_rewards_plugin.ppo.maths.losses import approximate_kl, policy_loss, value_loss
from trl_rewards_plugin.ppo.maths.masking import Reduce, alone, masked_moments, masked_sum, masked_whiten
from trl_rewards_plugin.ppo.maths.methods import ESTIMATORS, OBJECTIVES
from trl_rewards_plugin.ppo.maths.objectives import preference_loss
from trl_rewards_plugin.ppo.policy.output_head import Anchor, OutputHead
from trl_rewards_plugin.ppo.policy.policy import PolicyOutput
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.rollout import Rollout, UpdateBatch
from trl_rewards_plugin.ppo.scoring import less_eos_penalty


@dataclass(frozen=True)
class UpdateContext:
    """What stays the same throughout an update."""

    args: Seq2SeqPPOConfig
    rules: TokenRules  # the distribution that the tokens were drawn from
    framework: Framework
    critic_only: bool = False  # the policy is left as it is, for critic warm-up
    calls: StaticCalls = field(default_factory=StaticCalls)  # run the forward and backward passes
    anchor_head: OutputHead | None = None  # for the exact KL in the loss


def compute_token_rewards(
    rollout: Rollout, args: Seq2SeqPPOConfig, kl_coef: float, reduce: Reduce = alone
) -> tuple[Tensor, Tensor]:
    """The KL to the reference, in nats, and the rewards (B, T) of tokens; both 0 where the response mask is False.

    A token's reward is -kl_coef * KL (0 with `use_kl_loss`, which puts it into the loss), by the sampled token's; the
    last one's also has the score of the response, or in its place the sum of its normalised rewards.
    """
    mask, scores = rollout.response_mask, rollout.scores
    if args.normalizes_each_reward:
        assert rollout.reward_scores is not None  # `step`, which has none, refuses
        weights = args.reward_weights or [1.0] * rollout.reward_scores.shape[1]
        totals = normalized_sum(rollout.reward_scores, weights, args.num_generations).to(scores)
        scores = less_eos_penalty(totals, rollout.ended, args.missing_eos_penalty)
    sampled = token_kl(rollout.logprobs, rollout.ref_logprobs, args.kl_estimator)
    rewards = token_rewards(scores, sampled, mask, 0.0 if args.use_kl_loss else kl_coef)
    if args.whiten_rewards:
        rewards = masked_whiten(rewards, mask, shift_mean=False, reduce=reduce)
    kl = sampled if rollout.exact_kl is None else rollout.exact_kl
    return torch.where(mask, kl, torch.zeros_like(kl)), rewards


def compute_advantages(
    rollout: Rollout, rewards: Tensor, args: Seq2SeqPPOConfig, reduce: Reduce = alone
) -> UpdateBatch:
    """The rollout with advantages and returns by the config's estimator, from token rewards (B, T).

    Where the objective ranks, both are its marks: 1 or -1 on the tokens of a response that is learnt from, else 0.
    """
    mask = rollout.response_mask
    known = replace(rollout, reward_scores=None).tensors()
    if mark := OBJECTIVES[args.objective].mark:
        advantages = torch.where(mask, mark(rewards.sum(1), args.num_generations).unsqueeze(1), 0.0)
        return UpdateBatch(**known, advantages=advantages, returns=advantages)
    scale_rewards = "batch" if args.normalizes_each_reward else args.scale_rewards
    groups: Any = {"num_generations": args.num_generations, "scale_rewards": scale_rewards, "reduce": reduce}
    advantages, returns = estimate_advantages(
        args.advantage_estimator, rewards, rollout.values, mask, gamma=args.gamma, lam=args.lam, **groups
    )
    found = masked_whiten(advantages, mask, reduce=reduce) if args.whitens_advantages else advantages
    scale = None
    if rollout.exact_kl is not None and not args.use_kl_loss:
        compares, size = ESTIMATORS[args.advantage_estimator].compares_responses, args.num_generations
        plain = leave_one_out(rewards.sum(1), size).unsqueeze(1) * mask if compares else advantages
        scale = _reward_scale(found, plain, mask, args, reduce).to(rollout.scores).expand_as(rollout.scores)
    return UpdateBatch(**known, advantages=found, returns=returns, reward_scale=scale)


def _reward_scale(advantages: Tensor, plain: Tensor, mask: Tensor, args: Seq2SeqPPOConfig, reduce: Reduce) -> Tensor:
    """What a unit of reward has become in `advantages` (B, T), next to `plain` ones: 0-d, or (B,) by group."""
    by_group = ESTIMATORS[args.advantage_estimator].scales and args.scale_rewards == "group"
    if by_group and not args.normalizes_each_reward:  # each group has a unit of its own
        size = args.num_generations
        groups = ((values * mask).reshape(-1, size * mask.shape[1]) for values in (advantages, plain))
        ours, theirs = (torch.linalg.vector_norm(each, dim=1).repeat_interleave(size) for each in groups)
    else:
        ours, theirs = (masked_moments(values, mask, reduce)[2].sqrt() for values in (advantages, plain))
    scale: Tensor = ours / theirs.clamp(min=1e-8)
    return scale


def run_update(model: nn.Module, batch: UpdateBatch, kl_coef: float, context: UpdateContext) -> dict[str, float]:
    """`num_ppo_epochs` passes over a rollout in shuffled mini-batches; `kl_coef` weighs the KL penalty in the loss.

    Every optimizer step but the last is taken here; the gradients of the last are left for the Trainer. Where
    `early_stop_kl` ends the update, the mini-batch that showed it leaves no gradient behind.

    Returns:
        Means over mini-batches of the losses and diagnostics, under TRL's names. `val/ratio_first` and
        `val/sampling_gap` are of the first mini-batch only; the gap is the mean |current - sampler's log-probability|
        of a token, in nats.
    """
    args, framework = context.args, context.framework
    if args.mask_truncated_completions:
        batch = replace(batch, response_mask=batch.response_mask & batch.ended.unsqueeze(1))
    coef = torch.full((), kl_coef, device=batch.scores.device)
    take_step = GraphedStep(context.calls, framework)
    names: tuple[str, ...] = ()
    found: Tensor | None = None
    unread: list[Tensor] = []
    history: list[dict[str, float]] = []
    stopped = False
    for rows in _mini_batches(_learnt_together(batch, args), args):
        if found is not None:
            take_step(found)
        names, found = _accumulate_mini_batch(model, batch, rows, coef, context)
        unread.append(found)
        # Where the next step would skip bad numbers by itself, a GPU is waited for once an update.
        if take_step.skips_broken() and args.early_stop_kl is None:
            continue
        history += _read(model, names, unread)
        unread = []
        stopped = args.early_stop_kl is not None and history[-1]["policy/approxkl_avg"] > args.early_stop_kl
        if stopped:
            model.zero_grad()  # to None, so that the Trainer's own step changes nothing
            break
    history += _read(model, names, unread)
    means = {name: sum(stats[name] for stats in history) / len(history) for name in history[0]}
    ratios = torch.tensor([stats["val/ratio"] for stats in history])
    means["val/ratio_var"] = ratios.var(correction=0).item()
    # Before the first step the policy has not moved: 1 and 0, unless responses are scored otherwise than sampled.
    means |= {"val/ratio_first": history[0]["val/ratio"], "val/sampling_gap": history[0]["val/sampling_gap"]}
    return {**means, "val/optimizer_steps": float(len(history) - stopped)}


def _learnt_together(batch: UpdateBatch, args: Seq2SeqPPOConfig) -> Tensor:
    """(U, M) numbers of the rows that are learnt from, on the CPU; the M of one line stay in one mini-batch."""
    objective = OBJECTIVES[args.objective]
    rows = torch.arange(len(batch)) if objective.mark is None else batch.advantages[:, 0].cpu().nonzero()
    return rows.view(-1, objective.responses_per_prompt)


def _mini_batches(units: Tensor, args: Seq2SeqPPOConfig) -> Iterator[Tensor]:
    """Row numbers of every mini-batch of every epoch, the lines of `units` (U, M) shuffled anew for each epoch."""
    for _ in range(args.num_ppo_epochs):
        for part in torch.randperm(len(units)).tensor_split(min(args.num_mini_batches, len(units))):
            yield units[part].flatten()


def _accumulate_mini_batch(
    model: nn.Module, batch: UpdateBatch, rows: Tensor, kl_coef: Tensor, context: UpdateContext
) -> tuple[tuple[str, ...], Tensor]:
    """Accumulates the gradient of one mini-batch over micro-batches that fit in memory.

    The loss is a sum over tokens divided by the mini-batch's token count over all processes, so neither the split
    into micro-batches nor into processes changes it. Returns the names of its statistics, and on the device their
    means over tokens and, last, the norm of the gradients.
    """
    framework, args = context.framework, context.args
    prompt_lengths, response_lengths = batch.lengths[:, rows].unbind()
    lengths = (float(response_lengths.sum()), len(rows))  # filled in, so that no GPU is waited for
    counts = torch.stack([torch.full((), float(number), device=batch.scores.device) for number in lengths])
    counts = framework.reduce(counts).clamp(min=1)  # real tokens, by which the loss is divided, and responses
    # Rows of like length together: each micro-batch is cut to its own longest prompt. Pairs stay pairs.
    size, together = args.micro_batch_size, OBJECTIVES[args.objective].responses_per_prompt
    rows = rows.view(-1, together)[prompt_lengths.view(-1, together)[:, 0].argsort(stable=True)].flatten()
    with_references = args.sft_coef and not context.critic_only
    sft_loss = _accumulate_references(model, batch, rows, context) if with_references else None

    # What can be captured as a CUDA graph: its numbers depend on the given tensors and the model alone. It reads no
    # value back and branches on settings only.
    def accumulate(counts: Tensor, kl_coef: Tensor, **tensors: Tensor) -> dict[str, Tensor]:
        part, (tokens, responses), head = UpdateBatch(**tensors), counts.unbind(), context.anchor_head
        features = part.anchor_features
        anchor = None if features is None or head is None else Anchor(head, features)
        how: Any = {"critic_only": context.critic_only, "anchor": anchor}
        with framework.autocast():
            output = cast_together(model, part.prompts, part.response_ids, context.rules, **how)
        sums = ppo_losses(output, part, kl_coef, args, tokens / responses)
        # DDP averages over processes; multiplying by their number makes that the sum that `tokens` divides.
        framework.backward(sums["loss/total_avg"] / tokens * framework.world_size)
        return {name: value.detach() for name, value in sums.items()}

    chunks = rows.split(max(size - size % together, together))
    sums = None
    for number, chunk in enumerate(chunks):
        part = batch.select(chunk, context.calls.widths)
        inputs = {**part.tensors(), "counts": counts, "kl_coef": kl_coef}
        with framework.no_sync() if number < len(chunks) - 1 else nullcontext():
            found = context.calls("update", accumulate, inputs, model, (context.rules, context.critic_only))
        sums = found if sums is None else {name: sums[name] + value for name, value in found.items()}
    assert sums is not None  # tensor_split of a rollout with at least num_mini_batches rows leaves no empty one
    totals = framework.reduce(torch.stack(list(sums.values()))) / counts[0]
    means = dict(zip(sums, totals.unbind(), strict=True))
    # A mini-batch whose responses are all left out has moved no probability.
    means["val/ratio"] = torch.where(totals.any(), means["val/ratio"], torch.ones_like(counts[0]))
    if sft_loss is not None:
        means["loss/sft_avg"] = sft_loss
        means["loss/total_avg"] = means["loss/total_avg"] + args.sft_coef * sft_loss
    return tuple(means), torch.stack([*means.values(), gradient_norm(model, framework.reduce).to(totals)])


def _accumulate_references(model: nn.Module, batch: UpdateBatch, rows: Tensor, context: UpdateContext) -> Tensor:
    """Accumulates the gradient of a mini-batch's language-model term; returns its loss on all processes, 0-d.

        loss = -sum over tokens of log policy(reference text | prompt) / number of tokens,    times sft_coef
    Source: PPO-ptx, Ouyang et al. (arXiv 2203.02155), equation 2. Their texts are drawn from pretraining data, ours
    are those of the rollout's prompts, each counted once per response to its prompt in the mini-batch.
    """
    framework, args = context.framework, context.args
    assert batch.target_mask is not None  # collected wherever sft_coef is not 0
    tokens = framework.reduce(batch.target_mask[rows.to(batch.scores.device, non_blocking=True)].sum().float())

    def accumulate(tokens: Tensor, target_ids: Tensor, target_mask: Tensor, **prompts: Any) -> dict[str, Tensor]:
        with framework.autocast():
            output = cast_together(model, EncodedPrompts(**prompts), target_ids, context.rules.of_any_text())
        loss = -masked_sum(output.logprobs, target_mask)
        framework.backward(args.sft_coef * loss / tokens * framework.world_size)
        return {"loss": loss.detach()}

    total = torch.zeros_like(tokens)
    with framework.no_sync():
        for chunk in rows.split(args.micro_batch_size):
            part = batch.select(chunk, context.calls.widths)
            texts = {"target_ids": part.target_ids, "target_mask": part.target_mask, "tokens": tokens}
            inputs = {**vars(part.prompts), **texts}
            total += context.calls("the language-model term", accumulate, inputs, model, context.rules)["loss"]
    return framework.reduce(total) / tokens


def _read(model: nn.Module, names: tuple[str, ...], unread: list[Tensor]) -> list[dict[str, float]]:
    """The statistics of each mini-batch by name; refused where one, or a gradient's norm, is not finite."""
    read = []
    for *means, norm in torch.stack(unread).tolist() if unread else ():
        stats = dict(zip(names, means, strict=True))
        if not all(map(math.isfinite, means)):
            step = "lower learning_rate, or look at the rewards of this rollout"
            raise FloatingPointError(f"the update is not finite: {stats}; {step}")
        check_gradients(model, norm)
        read.append(stats)
    return read


def ppo_losses(
    output: PolicyOutput,
    batch: UpdateBatch,
    kl_coef: Tensor,
    args: Seq2SeqPPOConfig,
    mean_length: Tensor | float = 1.0,
) -> dict[str, Tensor]:
    """Sums over tokens of the losses and diagnostics, 0-d each; `loss/total_avg` is the one to minimise.

    By `mean_length`, tokens per response of the mini-batch, sums over pairs are scaled to those of a pair, and each
    response's by the mean length over its own where responses count alike (`loss_type="grpo"`).
    """
    mask = batch.response_mask
    # Before any exponential: one that overflows on padding would make the gradient of its masked 0 a NaN.
    logprobs, old_logprobs, ref_logprobs = (
        torch.where(mask, values, torch.zeros_like(values))
        for values in (output.logprobs, batch.logprobs, batch.ref_logprobs)
    )
    weight = mean_length / mask.sum(1, keepdim=True).clamp(min=1) if args.loss_type == "grpo" else 1.0
    own: dict[str, Tensor] = {}
    if args.objective == "raft":
        loss = -logprobs.sum()
    elif args.objective == "dpo":
        loss, own = _pair_losses(logprobs - ref_logprobs, batch, args, 2 * mean_length)
    else:
        pg_losses, pg_clipped = policy_loss(
            logprobs, old_logprobs, batch.advantages, args.cliprange, args.cliprange_high
        )
        loss, own = masked_sum(pg_losses * weight, mask), {"policy/clipfrac_avg": masked_sum(pg_clipped.float(), mask)}
    sums = {
        **own,
        "loss/policy_avg": loss,
        "policy/approxkl_avg": masked_sum(approximate_kl(logprobs, old_logprobs), mask),
        "policy/entropy_avg": masked_sum(output.entropies, mask),
        "val/ratio": masked_sum(torch.exp(logprobs - old_logprobs), mask),
        "val/sampling_gap": masked_sum((logprobs - batch.sampled_logprobs).abs(), mask),
    }
    if args.use_kl_loss or output.kl is not None:
        kl = token_kl(logprobs, ref_logprobs, args.kl_estimator) if output.kl is None else output.kl
        sums["loss/kl_avg"] = masked_sum(kl, mask)
        if batch.reward_scale is not None:  # it completes a penalty that has become advantages
            kl = kl * batch.reward_scale.unsqueeze(1)
        loss = loss + kl_coef * masked_sum(kl * weight, mask)
    if args.entropy_coef:
        loss = loss - args.entropy_coef * sums["policy/entropy_avg"]
    if args.has_critic:
        vf_losses, vf_clipped = value_loss(output.values, batch.values, batch.returns, args.cliprange_value)
        sums["loss/value_avg"] = masked_sum(vf_losses, mask)
        sums["val/clipfrac_avg"] = masked_sum(vf_clipped.float(), mask)
        loss = loss + args.vf_coef * sums["loss/value_avg"]
    return {**sums, "loss/total_avg": loss}


def _pair_losses(
    log_ratios: Tensor, batch: UpdateBatch, args: Seq2SeqPPOConfig, scale: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """DPO's loss and TRL's statistics of it as sums over pairs times `scale`; log-ratios (B, T) to the reference."""
    marks = batch.advantages[:, 0]  # 1 for the best, -1 for the worst; every response has a first token
    margins, gaps = ((marks * values).view(-1, 2).sum(1) for values in (args.beta * log_ratios.sum(1), batch.scores))
    loss = preference_loss(margins, gaps, args.dpo_labels).sum() * scale
    found = {"rewards/margins": margins, "rewards/accuracies": (margins > 0).float()}
    return loss, {name: values.sum() * scale for name, values in found.items()}
