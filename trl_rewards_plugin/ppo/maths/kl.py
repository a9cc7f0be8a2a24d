"""Divergence from the reference policy: estimators for a token, and the adaptive coefficient. Pure functions.

Leaves out: where the penalty goes: into the token rewards (advantages.py), or into the loss (ppo/update.py).
"""

from typing import Literal

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import check_same_shape

KLEstimator = Literal["k1", "k3"]


def token_kl(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimate of KL(policy || reference) from the sampled tokens, in nats per token.

    With r = log pi(token) - log ref(token), from samples of pi:
        k1 = r                    unbiased; single tokens may be negative
        k3 = exp(-r) - 1 + r      unbiased as a value and never negative, but its gradient, used as a penalty in the
                                  reward, does not lead to the KL-regularised optimum
    Source: J. Schulman, "Approximating KL divergence" (2020).

    Args:
        logprobs: (B, T) of the sampled tokens under the policy.
        ref_logprobs: (B, T) of the same tokens under the reference.

    Returns:
        (B, T).
    """
    check_same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    log_ratio = logprobs - ref_logprobs
    if estimator == "k1":
        return log_ratio
    if estimator == "k3":
        return torch.expm1(-log_ratio) + log_ratio
    raise ValueError(f"estimator must be 'k1' or 'k3', got {estimator!r}")


def next_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """The adaptive controller's coefficient after a rollout.

        error = clip(kl / target - 1, -0.2, 0.2)
        next  = kl_coef * (1 + error * episodes / horizon)
    Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences" (arXiv 1909.08593), section 2.2.

    Args:
        kl: mean over responses of the summed token KL, in nats per response.
        target: the KL aimed at, in the same unit.
        episodes: responses in the rollout.
        horizon: episodes over which a constant error of 1 would double the coefficient.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * episodes / horizon)
