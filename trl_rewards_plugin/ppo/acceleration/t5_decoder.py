"""T5's decoder read one token at a time, for sampling: a fixed cache, nothing looked up twice, no code in between.

A step of eight rows takes transformers' forward pass about 150 small operations a layer that are not arithmetic; here
it is 30. Weights are reached through transformers' own modules, so that adapters keep working.
Leaves out: whole responses (t5.py), and which tokens are allowed (token_rules.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import rms_norm
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.acceleration.packed_t5 import has_plain_decoder, logits, relative_bias


@dataclass
class _Attention:
    """What one attention of a layer needs in a step, looked up once; R = responses x heads."""

    norm: Callable[[Tensor], Tensor]
    query: Any
    key: Any
    value: Any
    output: Any
    keys: Tensor  # of a response (R, steps, D), written as it grows; of its prompt (R, S, D)
    values: Tensor

    def keep(self, rows: Tensor) -> None:
        """Leaves only these rows (R')."""
        self.keys, self.values = self.keys[rows], self.values[rows]


@dataclass
class _Layer:
    """One layer: what it attends to, the response and the prompt, and its feed-forward part."""

    response: _Attention
    prompt: _Attention
    norm: Callable[[Tensor], Tensor]
    feed: Any


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    """T5's norm in one call of torch's: one kernel on a GPU, half the time on a CPU; other roundings in fewer bits."""
    weight, eps = module.weight, module.variance_epsilon

    def norm(values: Tensor) -> Tensor:
        if values.dtype != weight.dtype:  # torch's wants one
            normed: Tensor = module(values)
            return normed
        return rms_norm(values, weight.shape, weight, eps)

    return norm


class T5Decoder:
    """A plain T5's or mT5's decoder and what it has read so far.

    Args:
        model: one that `T5Decoder.fits`.
        encoder_states: (B, S, H).
        prompt_mask: (B, S) bool.
        steps: how many tokens it can read.
    """

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, prompt_mask: Tensor, steps: int):
        self._model = model
        decoder = cast(Any, model).decoder
        self._embed, self._final_norm = decoder.embed_tokens, _norm(decoder.final_layer_norm)
        blocks = decoder.block
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
        response = self._attention(attending, attending.SelfAttention, keys.new_empty(room), keys.new_empty(room))
        prompt = self._attention(crossing, attention, keys, values)
        return _Layer(response, prompt, _norm(feeding.layer_norm), feeding.DenseReluDense)

    @staticmethod
    def _attention(layer: Any, attention: Any, keys: Tensor, values: Tensor) -> _Attention:
        return _Attention(_norm(layer.layer_norm), attention.q, attention.k, attention.v, attention.o, keys, values)

    def step(self, token: Tensor) -> tuple[Tensor, Tensor]:
        """Reads one more token (B, 1) of each response; logits (B, 1, V) and hidden states (B, 1, H)."""
        hidden = self._embed(token)
        for layer in self._layers:
            hidden = hidden + self._attend(layer.response, layer.response.norm(hidden))
            hidden = hidden + self._cross(layer.prompt, layer.prompt.norm(hidden))
            hidden = hidden + layer.feed(layer.norm(hidden))
        self._read += 1
        hidden = self._final_norm(hidden)
        return logits(self._model, hidden), hidden

    def _attend(self, part: _Attention, normed: Tensor) -> Tensor:
        """Attention to the response so far, the new token included: (B, 1, H) -> (B, 1, H)."""
        now = self._read
        part.keys[:, now] = part.key(normed).view(-1, self._width)
        part.values[:, now] = part.value(normed).view(-1, self._width)
        bias = self._bias[:, :, self._steps - 1 - now :]
        return self._attended(part, normed, part.keys[:, : now + 1], part.values[:, : now + 1], bias)

    def _cross(self, part: _Attention, normed: Tensor) -> Tensor:
        """Attention to the prompt: (B, 1, H) -> (B, 1, H)."""
        return self._attended(part, normed, part.keys, part.values, self._prompt_bias)

    def _attended(self, part: _Attention, normed: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """softmax(query keys^T + bias) values of one query a row, through the output projection."""
        query = part.query(normed).view(-1, 1, self._width)
        weights = torch.baddbmm(bias, query, keys.mT).softmax(-1)
        output: Tensor = part.output(torch.bmm(weights.to(values.dtype), values).view(len(normed), 1, -1))
        return output

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows (B') of the batch alone."""
        wide = (rows.unsqueeze(1) * self._heads + torch.arange(self._heads, device=rows.device)).flatten()
        self._bias, self._prompt_bias = self._bias[wide], self._prompt_bias[wide]
        for layer in self._layers:
            layer.response.keep(wide)
            layer.prompt.keep(wide)
