"""What must hold around the first update of a run: policy and reference still agree before it."""

import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.maths.masking import masked_mean
from trl_rewards_plugin.ppo.rollout import Rollout

# Mean distance of a token's log-probabilities, in nats. In lower precision sampling and scoring round differently.
_SAME = {torch.float32: 1e-3, torch.bfloat16: 0.1}


def check_same_start(rollout: Rollout, dtype: torch.dtype) -> None:
    """Refuses to update a policy whose reference is not the model that the run starts from.

    Args:
        rollout: of real prompts, before the first update.
        dtype: in which the models compute.

    Raises:
        InputError: the two score the responses differently.
    """
    gap = masked_mean((rollout.logprobs - rollout.ref_logprobs).abs(), rollout.response_mask).item()
    if not gap <= _SAME[dtype]:
        raise InputError(
            "a reference that is the policy before the first update (KL 0)",
            f"log-probabilities that differ by {gap:.3g} nats per token on the first rollout",
            "change the model before the trainer is made, not after; or pass a ref_model of your own",
        )
