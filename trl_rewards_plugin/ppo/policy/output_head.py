"""Log-probabilities and entropies of tokens without logits of B x T x V, which outweigh all else in an update.

Each slice of steps is multiplied by the output matrix, reduced to two numbers a token and forgotten; the backward pass
computes it again (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.architectures.families import family_of
from trl_rewards_plugin.ppo.architectures.forward_passes import run_decoder
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.policy.token_scores import TokenScores, token_scores


class OutputHead:
    """What turns a decoder's features into logits, as the model says; see `head_is_whole` for whether that is all."""

    def __init__(self, model: PreTrainedModel):
        self.matrix = cast(nn.Module, model.get_output_embeddings())
        self.bias: Tensor | None = getattr(model, "final_logits_bias", None)  # added to the logits (BART, Marian)
        config = model.config.get_text_config(decoder=True)
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)  # of a tanh (T5Gemma)

    def logits(self, features: Tensor) -> Tensor:
        """(B, T, H) -> (B, T, V)."""
        logits: Tensor = self.matrix(features)
        if self.bias is not None:
            logits = logits + self.bias.to(logits.device)
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


class Anchor(NamedTuple):
    """Distributions that the policy's are compared with, without their logits, which are V / H times as large."""

    head: OutputHead  # frozen
    features: Tensor  # (B, T, H) what it is given before each token


@torch.no_grad()
def head_is_whole(model: PreTrainedModel, rules: TokenRules) -> bool:
    """Whether features through `OutputHead` give the model's own logits, tried on one prompt of one token."""
    head = OutputHead(model)
    if not isinstance(head.matrix, nn.Linear) or family_of(model.config).scored_token_by_token:
        return False
    device = next(model.parameters()).device
    prompt_ids = torch.tensor([[rules.eos_ids[0]]], device=device)
    prompt = EncodedPrompts(prompt_ids, torch.ones_like(prompt_ids, dtype=torch.bool))
    inputs = torch.tensor([[*rules.prefix, rules.eos_ids[0]]], device=device)
    own, _ = run_decoder(model, prompt, inputs)
    features, _ = decoder_features(model, prompt, inputs)
    ours = head.logits(features)
    return ours.shape == own.shape and torch.allclose(ours, own, atol=1e-4, rtol=1e-4)


def decoder_features(
    model: PreTrainedModel, prompts: EncodedPrompts, decoder_input_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """What the output matrix is given, maybe scaled, and the decoder's last hidden states, both (B, T, H)."""
    seen: list[Tensor] = []

    # The model is run as it is, but its output matrix sees no step.
    def keep_no_step(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(inputs[0])
        return (inputs[0][:, :0], *inputs[1:])

    matrix = cast(nn.Module, model.get_output_embeddings())
    hook = matrix.register_forward_pre_hook(keep_no_step)
    try:
        _, hidden = run_decoder(model, prompts, decoder_input_ids)
    finally:
        hook.remove()
    return torch.cat(seen, dim=1), hidden


def score_in_slices(
    head: OutputHead,
    features: Tensor,
    token_ids: Tensor,
    rules: TokenRules,
    anchor: Anchor | None = None,
    slice_size: int = 2**25,  # 128 MiB in float32
) -> TokenScores:
    """Scores of response tokens (B, T), with the KL to an anchor where there is one.

    The features (B, T, H) are what the output matrix is given before each token. About `slice_size` logits are held;
    smaller batches are not computed twice.
    """
    vocabulary = cast(Any, head.matrix).weight.shape[0]
    steps = max(1, slice_size // (len(token_ids) * vocabulary * (1 if anchor is None else 2)))

    def score(part: Tensor, ids: Tensor, first_step: int) -> TokenScores:
        anchor_weights = None
        if anchor is not None:
            with torch.no_grad():
                own = anchor.features[:, first_step : first_step + ids.shape[1]]
                anchor_weights = rules.log_weights(anchor.head.logits(own), first_step)
        return token_scores(rules.log_weights(head.logits(part), first_step), ids, anchor_weights)

    width = token_ids.shape[1]
    if width <= steps:
        return score(features, token_ids, 0)
    scored = []
    for start in range(0, width, steps):
        part = (features[:, start : start + steps], token_ids[:, start : start + steps], start)
        if torch.is_grad_enabled():
            # No random number is drawn inside, and a graph may not read the random state.
            scored.append(checkpoint(score, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            scored.append(score(*part))
    logprobs, entropies, kl = zip(*scored, strict=True)
    whole_kl = None if anchor is None else torch.cat(kl, dim=1)
    return TokenScores(torch.cat(logprobs, dim=1), torch.cat(entropies, dim=1), whole_kl)
