"""What `kl_estimator="full"` compares the policy with: the reference, and the policy that drew the responses."""

import copy
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.distributed import asks_for_sharding
from trl_rewards_plugin.ppo.policy.output_head import OutputHead, head_is_whole
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules


class ExactKL:
    """The heads of `kl_estimator="full"`: `reference`, for the KL that is logged, and `anchor`, for that in the loss.

    The anchor is the policy as it was when it was last kept, or with `use_kl_loss` the reference. The features that
    they are given are kept in the rollout. InputError where logits are not the product of a whole output matrix, or
    are of other tokens.
    """

    def __init__(self, policy: PreTrainedModel, reference: PreTrainedModel, rules: TokenRules, args: Seq2SeqPPOConfig):
        models = (policy, reference)
        self._current, self.reference = map(OutputHead, models)
        sizes = {cast(Any, head.matrix).weight.shape[0] for head in (self._current, self.reference)}
        whole, sharded = all(head_is_whole(model, rules) for model in models), asks_for_sharding(args)
        if len(sizes) > 1 or sharded or not whole:
            expected = "for kl_estimator='full' whole, plain output matrices of one vocabulary in policy and reference"
            found = f"{type(policy).__name__}{' sharded' * sharded}, {' and '.join(map(str, sizes))} tokens"
            raise InputError(expected, found, "set kl_estimator='k1'")
        self.anchor = self.reference
        if not args.use_kl_loss:
            self.anchor = copy.copy(self._current)
            self.anchor.matrix = copy.deepcopy(self._current.matrix).requires_grad_(False)

    @torch.no_grad()
    def keep(self) -> OutputHead:
        """The anchor; where that is the policy, as it is now, copied in place because graphs read it."""
        if self.anchor is not self.reference:
            self.anchor.matrix.load_state_dict(self._current.matrix.state_dict())
        return self.anchor
