"""The policy and its value head as one module with one `forward`, because that is what DDP, FSDP and ZeRO wrap."""

from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.acceleration.static_calls import Inputs, StaticCalls, Tensors
from trl_rewards_plugin.ppo.architectures.forward_passes import decoder_width, run_decoder
from trl_rewards_plugin.ppo.maths.masking import known_ids
from trl_rewards_plugin.ppo.policy.output_head import Anchor, OutputHead, decoder_features, score_in_slices
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.policy.token_scores import TokenScores, token_scores


class PolicyOutput(NamedTuple):
    """Scores of given responses; all but the last are (B, T) float32."""

    logprobs: Tensor  # of each response token, in nats
    entropies: Tensor  # of the distribution that each token was drawn from, in nats
    values: Tensor  # of the state before each token
    kl: Tensor | None = None  # of that distribution to an anchor's, in nats; None without one
    features: Tensor | None = None  # (B, T, H) what the output matrix is given; None without an anchor


class PolicyWithValueHead(nn.Module):
    """An encoder-decoder and its critic: a linear value head on a decoder's last hidden state.

    Args:
        policy: a `PreTrainedModel`, or a `PeftModel` around one; what gets saved.
        has_critic: False leaves the head out; all values are then 0.
        detach_value_head: the value loss trains the head alone.
        value_model: a further model of the same vocabulary, on whose decoder the head sits instead.
        sliced: logits are computed a few steps at a time, where `output_head.head_is_whole` allows it.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        has_critic: bool = True,
        detach_value_head: bool = False,
        value_model: PreTrainedModel | None = None,
        sliced: bool = False,
    ):
        super().__init__()
        self.policy, self.value_model = policy, value_model
        self.detach_value_head, self.sliced = detach_value_head, sliced
        self.value_head = None
        if has_critic:  # it starts at 0, which leaves the first advantages to the rewards alone (arXiv 2403.17031)
            self.value_head = nn.Linear(decoder_width(value_model or self.core), 1)
            self.value_head.weight.data.zero_()
            self.value_head.bias.data.zero_()

    @property
    def core(self) -> PreTrainedModel:
        """The plain encoder-decoder: the policy, or what lies inside its adapter."""
        return bare_model(self.policy)

    def critic_parts(self) -> dict[str, nn.Module]:
        """What the value loss alone trains, by name."""
        parts = {"value_head": self.value_head, "value_model": self.value_model}
        return {name: part for name, part in parts.items() if part is not None}

    # What follows is the policy's own; the Trainer and accelerate look for it here.

    @property
    def config(self) -> Any:
        return self.core.config

    @property
    def generation_config(self) -> Any:
        return self.core.generation_config

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of the layers that FSDP makes units of."""
        present = {type(module).__name__ for module in self.modules()}
        return [name for name in self.core._no_split_modules or [] if name in present]

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return cast(Any, self.policy).generate(*args, **kwargs)

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        cast(Any, self.core).activation_checkpointing_enable(**settings)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:  # its name before transformers 5.23
        cast(Any, self.core).gradient_checkpointing_enable(**settings)

    def forward(
        self,
        prompts: EncodedPrompts,
        response_ids: Tensor,
        rules: TokenRules,
        *,
        critic_only: bool = False,
        anchor: Anchor | None = None,
    ) -> PolicyOutput:
        """Scores responses (B, T) without the decoder start by teacher forcing; what lies after EOS must be masked.

        With `critic_only` no gradient reaches the policy; the exact KL is measured to an `anchor`.
        """
        with torch.no_grad() if critic_only else nullcontext():
            found = score_responses(self.core, prompts, response_ids, rules, sliced=self.sliced, anchor=anchor)
        (logprobs, entropies, kl), hidden, features = found
        kept = None if anchor is None else features
        return PolicyOutput(logprobs, entropies, self.values(hidden, prompts, response_ids, rules), kl, kept)

    def values(self, hidden: Tensor, prompts: EncodedPrompts, response_ids: Tensor, rules: TokenRules) -> Tensor:
        """Values (B, T) of the states before each token, from the decoder's last hidden states (B, T, H), or 0."""
        if self.value_head is None:
            return torch.zeros(hidden.shape[:2], device=hidden.device)
        if self.value_model is not None:
            _, hidden = teacher_forced(self.value_model, prompts.with_states(None), response_ids, rules)
        elif self.detach_value_head:
            hidden = hidden.detach()
        # In float32 even under autocast: returns are compared with values to a few hundredths.
        with torch.autocast(hidden.device.type, enabled=False):
            return cast(Tensor, self.value_head(hidden.float()).squeeze(-1))


def bare_model(model: nn.Module) -> PreTrainedModel:
    """The `PreTrainedModel` inside a `PeftModel`, or the model itself."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else cast(PreTrainedModel, model)


def _decoder_inputs(response_ids: Tensor, prefix: tuple[int, ...]) -> Tensor:
    """Responses (B, T) behind what the decoder starts with, without their last token: (B, P + T - 1)."""
    start = known_ids(prefix, response_ids.device).expand(len(response_ids), -1)
    return torch.cat([start, response_ids[:, :-1]], dim=1)


def score_responses(
    model: PreTrainedModel,
    prompts: EncodedPrompts,
    response_ids: Tensor,
    rules: TokenRules,
    *,
    sliced: bool = False,
    anchor: Anchor | None = None,
) -> tuple[TokenScores, Tensor, Tensor | None]:
    """Scores of response tokens, the decoder's hidden states (B, T, H) and, where sliced, the output matrix's input.

    Sliced or not, the numbers are the same up to rounding; only slices are compared with an anchor.
    """
    if not sliced:
        log_weights, hidden = teacher_forced(model, prompts, response_ids, rules)
        return token_scores(log_weights, response_ids), hidden, None
    inputs, first = _decoder_inputs(response_ids, rules.prefix), len(rules.prefix) - 1
    features, hidden = (states[:, first:] for states in decoder_features(model, prompts, inputs))
    return score_in_slices(OutputHead(model), features, response_ids, rules, anchor), hidden, features


def teacher_forced(
    model: PreTrainedModel, prompts: EncodedPrompts, response_ids: Tensor, rules: TokenRules
) -> tuple[Tensor, Tensor]:
    """Log-weights (B, T, V) of every next token, and the decoder's last hidden states (B, T, H), given responses."""
    logits, hidden = run_decoder(model, prompts, _decoder_inputs(response_ids, rules.prefix))
    first = len(rules.prefix) - 1  # what the decoder reads before the response was not chosen by the policy
    return rules.log_weights(logits[:, first:]), hidden[:, first:]


@torch.no_grad()
def policy_scores(
    calls: StaticCalls,
    wrapped: PolicyWithValueHead,
    prompts: EncodedPrompts,
    response_ids: Tensor,
    rules: TokenRules,
    reference: Anchor | None = None,
) -> PolicyOutput:
    """What a rollout records: the policy's scores of responses (B, T); features only where there is a reference."""

    def score(response_ids: Tensor, ref_features: Any, **prompt: Any) -> Inputs:
        anchor = reference and reference._replace(features=ref_features)
        output: PolicyOutput = wrapped(EncodedPrompts(**prompt), response_ids, rules, anchor=anchor)
        return output._asdict()

    inputs = {**vars(prompts), "response_ids": response_ids, "ref_features": reference and reference.features}
    return PolicyOutput(**calls("scores of the policy", score, inputs, wrapped, rules))


@torch.no_grad()
def reference_scores(
    calls: StaticCalls,
    reference: PreTrainedModel,
    prompts: EncodedPrompts,
    response_ids: Tensor,
    rules: TokenRules,
    sliced: bool,
    with_features: bool,
) -> Tensors:
    """Likewise the reference's `logprobs` (B, T) and, if asked for, `features`; the arguments: `score_responses`."""

    def score(response_ids: Tensor, **prompt: Any) -> Inputs:
        scores, _, features = score_responses(reference, EncodedPrompts(**prompt), response_ids, rules, sliced=sliced)
        return {"logprobs": scores.logprobs, "features": features if with_features else None}

    inputs = {**vars(prompts), "response_ids": response_ids}
    return calls("scores of the reference", score, inputs, reference, (rules, with_features))
