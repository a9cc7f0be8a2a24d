"""From a score per response to an advantage per token: token rewards and the estimators.

A new estimator is a pure function here and a line in the table (methods.py). Leaves out: whitening (masking.py).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import Reduce, alone, check_same_shape, masked_moments
from trl_rewards_plugin.ppo.maths.methods import ESTIMATORS


def token_rewards(scores: Tensor, kl: Tensor, response_mask: Tensor, kl_coef: float) -> Tensor:
    """The KL penalty (B, T), in nats, on every token, and the score (B,) on the last real one.

        reward[b, t] = -kl_coef * kl[b, t] + (score[b] if t is the last real token of b else 0)
    Source: Ouyang et al. (arXiv 2203.02155), equation 2, as done in arXiv 2403.17031. Every row of the mask (B, T) has
    a real token; the result (B, T) is 0 where it is False.
    """
    check_same_shape(kl=kl, response_mask=response_mask)
    if scores.shape != kl.shape[:1]:
        raise ValueError(f"scores must be ({kl.shape[0]},) for kl {tuple(kl.shape)}, got {tuple(scores.shape)}")
    rewards = torch.where(response_mask, -kl_coef * kl, torch.zeros_like(kl))
    last = response_mask.sum(dim=1) - 1
    return rewards.scatter_add(1, last.unsqueeze(1), scores.unsqueeze(1).to(rewards.dtype))


def gae(rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over each response; the state after the last real token is worth 0.

        delta[t]     = reward[t] + gamma * value[t + 1] - value[t]
        advantage[t] = delta[t] + gamma * lam * advantage[t + 1]
        return[t]    = advantage[t] + value[t]
    Source: Schulman et al. (arXiv 1506.02438), equations 11 and 16.

    All are (B, T): value[t] is that of the state before token t is chosen, the mask is True on a prefix of every row,
    and advantages and returns are 0 where it is False.
    """
    check_same_shape(rewards=rewards, values=values, response_mask=response_mask)
    mask = response_mask.to(rewards.dtype)
    rewards, values = (torch.where(response_mask, each, torch.zeros_like(each)) for each in (rewards, values))
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # What is masked stays 0, so that the last real token is followed by 0 wherever its row ends.
        next_advantage = (delta + gamma * lam * next_advantage) * mask[:, t]
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + values


def reward_to_go(rewards: Tensor, response_mask: Tensor, *, gamma: float) -> Tensor:
    """REINFORCE's advantage without a critic: what each response still earns from a token on.

        advantage[t] = reward[t] + gamma * advantage[t + 1]
    Source: Williams, "Simple statistical gradient-following algorithms" (1992); whitened over the batch it is
    REINFORCE++ (arXiv 2501.03262). It is `gae` with lambda 1 and values 0, and has its shapes.
    """
    advantages, _ = gae(rewards, torch.zeros_like(rewards), response_mask, gamma=gamma, lam=1.0)
    return advantages


def leave_one_out(totals: Tensor, num_generations: int) -> Tensor:
    """RLOO: each response against the mean of the others to its prompt.

        advantage[i] = total[i] - mean of total[j] over the other responses j of the group
    Source: Ahmadian et al., "Back to Basics" (arXiv 2402.14740), equation 10. The paper treats a whole response as
    one action; here its tokens share the advantage, and each has a clipped ratio of its own.

    Totals (B,) are the whole reward of each response, KL penalty included where it is in the reward; here as below the
    `num_generations` responses to one prompt lie side by side. The result is (B,).
    """
    groups = _groups(totals, num_generations)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (num_generations - 1)
    return (groups - others).flatten()


def group_relative(
    totals: Tensor, num_generations: int, scale_rewards: str = "group", reduce: Reduce = alone, epsilon: float = 1e-4
) -> Tensor:
    """GRPO: each response against its group's mean, in units of the group's standard deviation.

        advantage[i] = (total[i] - mean of the group) / (std of the group + epsilon)
    Source: Shao et al., "DeepSeekMath" (arXiv 2402.03300), outcome supervision; epsilon and the unbiased standard
    deviation (n - 1) as in TRL. The paper's loss is a mean over responses of their tokens' means (`loss_type="grpo"`);
    the default is one over all tokens, as in DAPO (arXiv 2503.14476).

    `scale_rewards` says whose deviation: "group", "batch" (arXiv 2508.08221), or "none" (Dr. GRPO, arXiv 2503.20783).
    Totals and result are (B,), the result 0 where a whole group has one total.
    """
    groups = _groups(totals, num_generations)
    centred = groups - groups.mean(dim=1, keepdim=True)
    if scale_rewards == "none":
        return centred.flatten()
    spread = groups.std(dim=1, keepdim=True)
    if scale_rewards == "batch":
        count, _, squares = masked_moments(totals, torch.ones_like(totals, dtype=torch.bool), reduce)
        spread = (squares / (count - 1)).sqrt().to(totals.dtype)
    return (centred / (spread + epsilon)).flatten()


def normalized_sum(scores: Tensor, weights: Sequence[float], num_generations: int, epsilon: float = 1e-4) -> Tensor:
    """GDPO: every reward is normalised before they are added up, to totals (B,).

        total[i] = sum over k of weight[k] (score[i, k] - mean of the group) / (std of the group + epsilon)
    Source: arXiv 2601.05242, with TRL's numbers, which then scales the totals by the batch as `group_relative` does.
    The scores are (B, K), NaN where a reward gave none, in groups as above.
    """
    groups = scores.view(-1, num_generations, scores.shape[1])
    centred = groups - groups.nanmean(dim=1, keepdim=True)
    count = centred.isfinite().sum(dim=1, keepdim=True)
    spread = (centred.square().nansum(dim=1, keepdim=True) / (count - 1)).sqrt()
    return (centred / (spread + epsilon) * scores.new_tensor(weights)).nansum(dim=2).flatten()


def _groups(totals: Tensor, num_generations: int) -> Tensor:
    """(B,) -> (prompts, num_generations), each group less its first total.

    Estimators compare within a group, and this way the rounding of a mean is that of the differences: equal totals
    give exactly 0, at any level.
    """
    if totals.ndim != 1 or num_generations < 2 or len(totals) % num_generations:
        found = f"{tuple(totals.shape)} and {num_generations}"
        raise ValueError(f"totals must be (B,) with B a multiple of num_generations >= 2, got {found}")
    groups = totals.view(-1, num_generations)
    return groups - groups[:, :1]


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

    All tensors are (B, T), the mask True on a prefix of every row; the `num_generations` responses to one prompt lie
    side by side. `scaling` is `scale_rewards` and `reduce`, for those that scale.
    """
    estimator = ESTIMATORS[name]
    if estimator.needs_critic:
        return cast(tuple[Tensor, Tensor], estimator.function(rewards, values, mask, gamma=gamma, lam=lam))
    if estimator.compares_responses:
        per_response = estimator.function(rewards.sum(1), num_generations, **(scaling if estimator.scales else {}))
        advantages = torch.where(mask, per_response.unsqueeze(1), torch.zeros_like(rewards))
    else:
        advantages = estimator.function(rewards, mask, gamma=gamma)
    return advantages, advantages
