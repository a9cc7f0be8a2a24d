"""PPO's clipped losses, for every token. Pure functions.

Sums are the caller's, who divides by the token count of the whole mini-batch (all processes, all micro-batches).
"""

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import check_same_shape


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, cliprange: float, cliprange_high: float | None = None
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate objective, negated.

        ratio = exp(logprob - old_logprob)
        loss  = max(-advantage * ratio, -advantage * clip(ratio, 1 - cliprange, 1 + cliprange))
    Source: Schulman et al., "Proximal Policy Optimization" (arXiv 1707.06347), equation 7; with `cliprange_high` for
    the upper end, DAPO's clip-higher (arXiv 2503.14476).

    Returns the loss (B, T), the shape of all arguments, and where the clipped side was the larger (B, T) bool.
    """
    check_same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    ratio = torch.exp(logprobs - old_logprobs)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - cliprange, 1.0 + (cliprange_high or cliprange))
    return torch.maximum(unclipped, clipped), clipped > unclipped


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, cliprange_value: float) -> tuple[Tensor, Tensor]:
    """Squared error of the value, pessimistic about moves of more than `cliprange_value`.

        clipped = old_value + clip(value - old_value, -cliprange_value, cliprange_value)
        loss    = 0.5 * max((value - return)^2, (clipped - return)^2)
    Source: openai/baselines ppo2; detail 9 of Huang et al., "The 37 Implementation Details of PPO" (2022).

    Returns the loss (B, T), the shape of all arguments, and where the clipped side was the larger (B, T) bool.
    """
    check_same_shape(values=values, old_values=old_values, returns=returns)
    clipped_values = torch.clamp(values, old_values - cliprange_value, old_values + cliprange_value)
    unclipped, clipped = (values - returns) ** 2, (clipped_values - returns) ** 2
    return 0.5 * torch.maximum(unclipped, clipped), clipped > unclipped


def approximate_kl(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """KL(old || new) of the sampled tokens to second order, in nats: 0.5 * (logprob - old_logprob)^2, (B, T).

    TRL logs it as policy/approxkl. Source: J. Schulman, "Approximating KL divergence" (2020), estimator k2.
    """
    check_same_shape(logprobs=logprobs, old_logprobs=old_logprobs)
    return 0.5 * (logprobs - old_logprobs) ** 2
