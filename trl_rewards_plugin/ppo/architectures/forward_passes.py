"""The forward passes of any encoder-decoder: encoder, teacher-forced decoder, decoder one token at a time."""

from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import MoEModelOutput

from trl_rewards_plugin.ppo.acceleration import seam
from trl_rewards_plugin.ppo.architectures.families import family_of
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts


def decoder_width(model: PreTrainedModel) -> int:
    """Size H of the decoder's hidden states."""
    return int(model.config.get_text_config(decoder=True).hidden_size)


def run_encoder(model: PreTrainedModel, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """The encoder's last hidden states (B, S, H) of prompts (B, S), padded on the right; of padding they may be 0."""
    encoder = cast(Any, model).get_encoder()
    states = seam.encode(encoder, prompt_ids, prompt_mask)  # by a faster way to the same numbers, where there is one
    if states is None:
        states = encoder(input_ids=prompt_ids, attention_mask=prompt_mask.long(), return_dict=True)[0]
    return states


def run_decoder(model: PreTrainedModel, prompts: EncodedPrompts, decoder_input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher-forced forward pass: logits (B, T, V) and the decoder's last hidden states (B, T, H).

    Where the prompts have states, the encoder is not run again. The decoder's input (B, T) begins with its start. No
    mask goes with it: padding lies behind the EOS, and a causal decoder never looks there.
    """
    states = run_encoder(model, prompts.ids, prompts.mask) if prompts.states is None else prompts.states
    if family_of(model.config).scored_token_by_token:
        decoder = CachedDecoder(model, states, prompts.mask)
        steps = [decoder.step(token) for token in decoder_input_ids.split(1, dim=1)]
        logits, hidden = zip(*steps, strict=True)
        return torch.cat(logits, dim=1), torch.cat(hidden, dim=1)
    # FSMT makes its causal mask only where the prompts' ids are passed as well.
    inputs = {"input_ids": prompts.ids, "decoder_input_ids": decoder_input_ids, "use_cache": False}
    return _logits_and_hidden(model, states, prompts.mask, inputs)


def _logits_and_hidden(model: Any, states: Tensor, mask: Tensor, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    encoded = MoEModelOutput(last_hidden_state=states)  # models with experts ask it for router logits
    asked = {"output_hidden_states": True, "return_dict": True}
    outputs = model(encoder_outputs=encoded, attention_mask=mask.long(), **inputs, **asked)
    return outputs.logits, outputs.decoder_hidden_states[-1]


def cache_name(model: PreTrainedModel) -> str:
    """The argument of `forward` that takes the key-value cache: `cache` from transformers 5.24 on."""
    # A forward that only passes `**kwargs` on takes what that of its base class names.
    forwards = [vars(owner)["forward"] for owner in type(model).__mro__ if "forward" in vars(owner)]
    return "cache" if any("cache" in signature(forward).parameters for forward in forwards) else "past_key_values"


class CachedDecoder:
    """A model's decoder and its key-value cache: reads responses to B prompts one token at a time.

    One at a time also where more are known: with a cache, FSMT has no causal mask and ProphetNet takes no more.
    """

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, prompt_mask: Tensor):
        self._model, self._states, self._mask = model, encoder_states, prompt_mask
        # Without a config it grows layer by layer: sized by T5's it would count the encoder.
        self._cache, self._cache_name = EncoderDecoderCache(DynamicCache(), DynamicCache()), cache_name(model)

    def step(self, token: Tensor) -> tuple[Tensor, Tensor]:
        """Reads one more token (B, 1) of each response; logits (B, 1, V) and hidden states (B, 1, H)."""
        inputs = {"decoder_input_ids": token, "use_cache": True, self._cache_name: self._cache}
        return _logits_and_hidden(self._model, self._states, self._mask, inputs)

    def keep(self, rows: Tensor) -> None:
        """Continues with these rows (B') of the batch alone."""
        self._cache.batch_select_indices(rows)
        self._states, self._mask = self._states[rows], self._mask[rows]
