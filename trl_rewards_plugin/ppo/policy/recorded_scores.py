"""What a rollout records of whole responses, without gradient: the policy's scores and the reference's.

Leaves out: what the sampler itself computed (sampling.py), and the update's pass, which has a gradient (update.py).
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.policy.encoded_prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.policy import PolicyOutput, PolicyWithValueHead, score_responses
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules


@torch.no_grad()
def policy_scores(
    calls: StaticCalls, wrapped: PolicyWithValueHead, prompts: EncodedPrompts, response_ids: Tensor, rules: TokenRules
) -> PolicyOutput:
    """The policy's log-probabilities, entropies and values (B, T) of responses (B, T)."""

    def score(response_ids: Tensor, ids: Tensor, mask: Tensor, states: Tensor | None) -> dict[str, Tensor]:
        output: PolicyOutput = wrapped(EncodedPrompts(ids, mask, states), response_ids, rules)
        return output._asdict()

    inputs = {**vars(prompts), "response_ids": response_ids}
    return PolicyOutput(**calls("scores of the policy", score, inputs, wrapped, rules))


@torch.no_grad()
def reference_scores(
    calls: StaticCalls,
    reference: PreTrainedModel,
    prompts: EncodedPrompts,
    response_ids: Tensor,
    rules: TokenRules,
    sliced: bool,
) -> Tensor:
    """The reference's log-probabilities (B, T) of responses (B, T); the arguments as in `score_responses`."""

    def score(response_ids: Tensor, ids: Tensor, mask: Tensor, states: Tensor | None) -> dict[str, Tensor]:
        logprobs, _, _ = score_responses(
            reference, EncodedPrompts(ids, mask, states), response_ids, rules, sliced=sliced
        )
        return {"logprobs": logprobs}

    inputs = {**vars(prompts), "response_ids": response_ids}
    return calls("scores of the reference", score, inputs, reference, rules)["logprobs"]
