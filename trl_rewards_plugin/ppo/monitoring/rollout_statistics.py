"""What a rollout looked like before the update, as the numbers that are logged; those of the update: update.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import Reduce, alone, as_precise, masked_moments
from trl_rewards_plugin.ppo.rollout import Rollout, UpdateBatch


def rollout_statistics(
    rollout: Rollout,
    kl: Tensor,
    kl_coef: float,
    gather: Callable[[Tensor], Tensor] = alone,
    *,
    in_reward: bool = True,
    num_generations: int = 1,
) -> dict[str, float]:
    """A rollout on all processes, under TRL's names.

    `objective/kl`, `non_score_reward` and `rlhf_reward` are means over responses of token sums, KL in nats; the
    entropy is a mean over tokens.

    Args:
        rollout: this process's part.
        kl: (B, T) its KL to the reference, in nats, 0 where the response mask is False.
        gather: joins rows (B, columns) of all processes; the identity on one.
        num_generations: responses to a prompt; of several, `frac_reward_zero_std` is the share with equal scores.
        in_reward: whether the KL penalty is part of the reward; in the loss it is no reward that was given.
    """
    mask = rollout.response_mask
    zeros = torch.zeros_like(rollout.logprobs)
    columns = [
        rollout.scores,
        kl.sum(1),
        torch.where(mask, rollout.entropies, zeros).sum(1),
        rollout.ended,
        rollout.prompt_mask.sum(1),
        mask.sum(1),
    ]
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
