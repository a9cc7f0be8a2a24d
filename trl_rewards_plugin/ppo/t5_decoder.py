"""T5's decoder read one token at a time, for sampling: a fixed cache, nothing looked up twice, no code in between.

A step of eight rows takes transformers' forward pass about 150 small operations a layer that are not arithmetic; here
it is 30. Weights are reached through transformers' own modules, so that adapters keep working.
Leaves out: whole responses (t5.py), and which tokens are allowed (token_rules.py).
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import rms_norm
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.t5 import has_plain_decoder, logits, relative_bias


@dataclass
class _Layer:
    """One layer's modules and its cache; R = responses x heads."""

    attending: Any
    crossing: Any
    feeding: Any
    keys: Tensor  # (R, steps, D), written as the response grows
    values: Tensor
    prompt_keys: Tensor  # (R, S, D)
    prompt_values: Tensor

    def keep(self, rows: Tensor) -> None:
        """Leaves only these rows (R')."""
        for name in ("keys", "values", "prompt_keys", "prompt_values"):
            setattr(self, name, getattr(self, name)[rows])


def _norm(module: Any, values: Tensor) -> Tensor:
    """T5's norm in one call of torch's, which is one kernel on a GPU and takes half the time of six on a CPU."""
    if values.dtype != module.weight.dtype:  # torch's wants one
        normed: Tensor = module(values)
        return normed
    return rms_norm(values, values.shape[-1:], module.weight, module.variance_epsilon)


class T5Decoder:
    """A plain T5's or mT5's decoder and what it has read so far.

    Args:
        model: one that `T5Decoder.fits`.
        encoder_states: (B, S, H).
        prompt_mask: (B, S) bool.
        steps: how many tokens it can read.
    """

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, prompt_mask: Tensor, steps: int):
        self._model = cast(Any, model)
        blocks = self._model.decoder.block
        first = blocks[0].layer[0].SelfAttention
        self._heads, self._width = first.n_heads, first.key_value_proj_dim
        self._steps, self._read = steps, 0
        batch = len(prompt_mask)
        # Row t of the causal bias is the last row without its first columns: only the distance counts.
        self._bias = relative_bias(first, torch.arange(1 - steps, 1, device=prompt_mask.device).unsqueeze(0))
        self._bias = self._bias.repeat(batch, 1, 1)  # (R, 1, steps)
        hidden_prompt = torch.zeros(prompt_mask.shape, dtype=self._bias.dtype, device=prompt_mask.device)
        # Not -inf: of a prompt without tokens the softmax would be NaN.
        hidden_prompt.masked_fill_(~prompt_mask, torch.finfo(hidden_prompt.dtype).min)
        self._prompt_bias = hidden_prompt.repeat_interleave(self._heads, dim=0).unsqueeze(1)  # (R, 1, S)
        self._layers = [self._layer(block, encoder_states) for block in blocks]

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether the model's decoder is one that this class computes."""
        # In float16 T5 clamps what overflows between its layers; that is left to transformers.
        return has_plain_decoder(model) and model.dtype != torch.float16

    def _layer(self, block: Any, encoder_states: Tensor) -> _Layer:
        attending, crossing, feeding = block.layer
        attention = crossing.EncDecAttention
        keys, values = (
            project(encoder_states).unflatten(2, (self._heads, self._width)).transpose(1, 2).flatten(0, 1)
            for project in (attention.k, attention.v)
        )
        room = (len(keys), self._steps, self._width)
        return _Layer(attending, crossing, feeding, keys.new_empty(room), keys.new_empty(room), keys, values)

    def step(self, token: Tensor) -> tuple[Tensor, Tensor]:
        """Reads one more token (B, 1) of each response; logits (B, 1, V) and hidden states (B, 1, H)."""
        decoder = self._model.decoder
        hidden = decoder.embed_tokens(token)
        for layer in self._layers:
            hidden = hidden + self._attend(layer, _norm(layer.attending.layer_norm, hidden))
            hidden = hidden + self._cross(layer, _norm(layer.crossing.layer_norm, hidden))
            hidden = hidden + layer.feeding.DenseReluDense(_norm(layer.feeding.layer_norm, hidden))
        self._read += 1
        hidden = _norm(decoder.final_layer_norm, hidden)
        return logits(self._model, hidden), hidden

    def _attend(self, layer: _Layer, normed: Tensor) -> Tensor:
        """Attention to the response so far, the new token included: (B, 1, H) -> (B, 1, H)."""
        attention, now = layer.attending.SelfAttention, self._read
        layer.keys[:, now] = attention.k(normed).view(-1, self._width)
        layer.values[:, now] = attention.v(normed).view(-1, self._width)
        seen = slice(now + 1)
        bias = self._bias[:, :, self._steps - 1 - now :]
        return self._attended(attention, normed, layer.keys[:, seen], layer.values[:, seen], bias)

    def _cross(self, layer: _Layer, normed: Tensor) -> Tensor:
        """Attention to the prompt: (B, 1, H) -> (B, 1, H)."""
        attention = layer.crossing.EncDecAttention
        return self._attended(attention, normed, layer.prompt_keys, layer.prompt_values, self._prompt_bias)

    def _attended(self, attention: Any, normed: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """softmax(query keys^T + bias) values of one query a row, through the output projection."""
        query = attention.q(normed).view(-1, 1, self._width)
        weights = torch.baddbmm(bias, query, keys.mT).softmax(-1)
        output: Tensor = attention.o(torch.bmm(weights.to(values.dtype), values).view(len(normed), 1, -1))
        return output

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows (B') of the batch alone."""
        wide = (rows.unsqueeze(1) * self._heads + torch.arange(self._heads, device=rows.device)).flatten()
        self._bias, self._prompt_bias = self._bias[wide], self._prompt_bias[wide]
        for layer in self._layers:
            layer.keep(wide)
