"""Divergence from the reference policy: estimators for a token, and the adaptive coefficient. Pure functions.

The penalty is charged in the reward by `advantages.token_rewards`, or in the loss by `ppo/update.ppo_losses`.
Leaves out: sums over a vocabulary (policy/token_scores.py).
"""

from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import check_same_shape
from trl_rewards_plugin.ppo.maths.methods import KL_ESTIMATORS


def token_kl(logprobs: Tensor, ref_logprobs: Tensor, estimator: str) -> Tensor:
    """Estimate of KL(policy || reference), in nats per token (B, T), from log-probabilities (B, T) of sampled tokens.

    With r = log pi(token) - log ref(token), from samples of pi:
        k1 = r                    unbiased; single tokens may be negative
        k3 = exp(-r) - 1 + r      unbiased as a value and never negative, but its gradient, used as a penalty in the
                                  reward, does not lead to the KL-regularised optimum
    Source: J. Schulman, "Approximating KL divergence" (2020).

    "full" measures the KL of a token's whole distribution (the Rao-Blackwellised estimator of Amini et al., arXiv
    2504.10637). Its penalty rests on an identity: while pi moves away from the policy `old` that drew the responses,
        KL(pi || ref) = KL(pi || old) + E_pi[log old(token) - log ref(token)]
    The first, exact and 0 at the start, is in the loss; the second is k1's reward. The reward's noise so ends where
    the optimum is, and the penalty does not grow stale over the epochs, as k1's does.
    """
    check_same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    return KL_ESTIMATORS[estimator].function(logprobs - ref_logprobs)


def next_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """The adaptive controller's coefficient after a rollout.

        error = clip(kl / target - 1, -0.2, 0.2)
        next  = kl_coef * (1 + error * episodes / horizon)
    Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences" (arXiv 1909.08593), section 2.2.

    `kl` is the mean over responses of the summed token KL, and like `target` in nats per response; `episodes` are the
    responses in the rollout, `horizon` those over which a constant error of 1 would double the coefficient.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * episodes / horizon)
