"""The policy and its value head as one module: token ids in, log-probabilities, entropies and values out.

One module with one `forward`, because that is what DDP, FSDP and ZeRO wrap. Teacher forcing here and sampling in
rollout.py go through the same `TokenRules`, so both speak of one distribution.
Leaves out: sampling, and the reference policy's weights (they live beside this module, frozen).
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.masking import check_same_shape
from trl_rewards_plugin.ppo.token_rules import TokenRules


class PolicyOutput(NamedTuple):
    """What the policy says of given responses; every field is (B, T) float32.

    Attributes:
        logprobs: of each response token, in nats.
        entropies: of the distribution that each token was drawn from, in nats; without gradient.
        values: of the state before each token.
    """

    logprobs: Tensor
    entropies: Tensor
    values: Tensor


class PolicyWithValueHead(nn.Module):
    """An encoder-decoder and a linear value head on its decoder's last hidden state.

    Args:
        policy: a sequence-to-sequence `PreTrainedModel`, or a `PeftModel` around one. It stays reachable, as it was
            passed, under `policy`, and is what gets saved.
    """

    def __init__(self, policy: nn.Module):
        super().__init__()
        self.policy = policy
        self.value_head = nn.Linear(decoder_width(self.core), 1)
        # A critic that starts at 0 leaves the first advantages to the rewards alone (arXiv 2403.17031).
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    @property
    def core(self) -> PreTrainedModel:
        """The plain encoder-decoder that computes: the policy, or what lies inside its adapter."""
        return bare_model(self.policy)

    @property
    def config(self):
        """The policy's own configuration, which the host looks for here."""
        return self.core.config

    @property
    def generation_config(self):
        """The policy's own generation configuration."""
        return self.core.generation_config

    def generate(self, *args: Any, **kwargs: Any):
        """The policy's own `generate`."""
        return cast(Any, self.policy).generate(*args, **kwargs)

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Turns on gradient checkpointing in the policy; the host's name since transformers 5.23."""
        cast(Any, self.core).activation_checkpointing_enable(**settings)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Turns on gradient checkpointing in the policy; the host's name before transformers 5.23."""
        cast(Any, self.core).gradient_checkpointing_enable(**settings)

    def forward(
        self, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, rules: TokenRules
    ) -> PolicyOutput:
        """Scores responses by teacher forcing.

        Args:
            prompt_ids, prompt_mask: (B, S).
            response_ids: (B, T) without the decoder start; what lies after EOS is scored too and must be masked.
            rules: the distribution that the tokens were drawn from.
        """
        log_weights, hidden = teacher_forced(self.core, prompt_ids, prompt_mask, response_ids, rules)
        # In float32 even under autocast: returns are compared with values to a few hundredths.
        with torch.autocast(hidden.device.type, enabled=False):
            values = self.value_head(hidden.float()).squeeze(-1)
        return PolicyOutput(token_logprobs(log_weights, response_ids), token_entropies(log_weights), values)


def bare_model(model: nn.Module) -> PreTrainedModel:
    """The `PreTrainedModel` inside a `PeftModel`, or the model itself."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else cast(PreTrainedModel, model)


def decoder_width(model: PreTrainedModel) -> int:
    """Size of the decoder's hidden states."""
    config = model.config.get_text_config(decoder=True)
    return config.hidden_size


def decoder_inputs(response_ids: Tensor, start_id: int) -> Tensor:
    """Shifts responses (B, T) right by one behind the decoder start."""
    start = torch.full_like(response_ids[:, :1], start_id)
    return torch.cat([start, response_ids[:, :-1]], dim=1)


def teacher_forced(
    model: PreTrainedModel, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, rules: TokenRules
) -> tuple[Tensor, Tensor]:
    """Log-weights (B, T, V) of every next token, and the decoder's last hidden states (B, T, H), given responses.

    No decoder mask is passed: padding lies behind the EOS, and a causal decoder never looks there.
    """
    outputs = model(
        input_ids=prompt_ids,
        attention_mask=prompt_mask.long(),
        decoder_input_ids=decoder_inputs(response_ids, rules.start_id),
        use_cache=False,
        output_hidden_states=True,
        return_dict=True,
    )
    return rules.log_weights(outputs.logits), outputs.decoder_hidden_states[-1]


def token_logprobs(log_weights: Tensor, token_ids: Tensor) -> Tensor:
    """log softmax(log_weights)[token] in nats: (B, T, V) and (B, T) -> (B, T).

    A token that is not allowed (the padding behind an EOS) gets a large negative finite number, because -inf times
    a mask of 0 would be NaN.
    """
    check_same_shape(log_weights=log_weights[..., 0], token_ids=token_ids)
    chosen = log_weights.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return (chosen - log_weights.logsumexp(-1)).clamp(min=torch.finfo(torch.float32).min / 2)


@torch.no_grad()
def token_entropies(log_weights: Tensor) -> Tensor:
    """Entropy of softmax(log_weights) in nats: (B, T, V) -> (B, T)."""
    return torch.special.entr(log_weights.softmax(-1)).sum(-1)


def turn_off_dropout(module: nn.Module) -> None:
    """Sets every dropout and layerdrop probability in a built module to 0, and leaves its config as it is.

    Zeroing `nn.Dropout` alone is not enough: T5's attention and all of BART read a float attribute of the module.
    The config stays, so that the saved model keeps its own setting.
    """
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for name, value in vars(part).items():
            if ("dropout" in name or "layerdrop" in name) and isinstance(value, float):
                setattr(part, name, 0.0)
