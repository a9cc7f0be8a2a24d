"""What a rollout looked like before the update, as the numbers that are logged.

Leaves out: statistics of the update itself (update.py).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import masked_sum
from trl_rewards_plugin.ppo.rollout import Rollout, UpdateBatch


def rollout_statistics(
    rollout: Rollout, kl: Tensor, kl_coef: float, gather: Callable[[Tensor], Tensor] = lambda rows: rows
) -> dict[str, float]:
    """A rollout on all processes, under TRL's names.

    `objective/kl`, `non_score_reward` and `rlhf_reward` are means over responses of token sums, KL in nats; the
    entropy is a mean over tokens.

    Args:
        rollout: this process's part.
        kl: (B, T) its KL to the reference, in nats, 0 where the response mask is False.
        gather: joins rows (B, columns) of all processes; the identity on one.
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


def critic_statistics(batch: UpdateBatch, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
    """How well the values predicted the returns, over the tokens of all processes, under the classic names.

    val/error         = mean of (value - return)^2
    val/var_explained = 1 - val/error / variance of the returns; 1 is perfect, 0 no better than a constant
    """
    mask, returns = batch.response_mask, batch.returns
    sums = [masked_sum(values, mask) for values in ((batch.values - returns) ** 2, returns, returns**2)]
    error, mean, squares = (reduce(torch.stack(sums).double()) / reduce(mask.sum().double())).tolist()
    variance = squares - mean**2
    return {"val/error": error, "val/var_explained": 1 - error / variance if variance > 1e-12 else float("nan")}
