"""The encoder's pass over a batch of prompts: on a CPU by groups of like length, each cut to its own longest prompt.

A group of some thousand tokens stays nearer to the caches and carries less padding: a tenth of the time at 16 and more
prompts, in either direction (benchmarks/README.md). A GPU wants one large batch, and processes that share out a
model's weights must all call its layers equally often, whatever their prompts. T5's encoder has a way of its own on
a CPU, without any padding (t5.py).
Leaves out: the decoder (architectures.py).
"""

from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.acceleration.fixed_shapes import shapes_are_fixed
from trl_rewards_plugin.ppo.acceleration.packed_t5 import encode_packed, is_plain_t5, runs_packed

_GROUP_TOKENS = 1024


def run_encoder(model: PreTrainedModel, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """The encoder's last hidden states (B, S, H) of prompts (B, S), padded on the right; of padding they may be 0."""
    encoder = cast(Any, model).get_encoder()
    if is_plain_t5(encoder) and runs_packed(encoder, prompt_mask):
        return encode_packed(encoder, prompt_ids, prompt_mask)
    batch, width = prompt_ids.shape
    rows = -(-_GROUP_TOKENS // width)
    if prompt_ids.device.type != "cpu" or shapes_are_fixed() or batch <= rows or distributed.is_initialized():
        return _encode(encoder, prompt_ids, prompt_mask)
    order = prompt_mask.sum(1).argsort(stable=True)
    groups = []
    for group in order.split(rows):
        longest = int(prompt_mask[group].sum(1).max())
        states = _encode(encoder, prompt_ids[group, :longest], prompt_mask[group, :longest])
        groups.append(torch.nn.functional.pad(states, (0, 0, 0, width - longest)))
    return torch.cat(groups)[order.argsort()]


def _encode(encoder: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """One pass."""
    states: Tensor = encoder(input_ids=prompt_ids, attention_mask=prompt_mask.long(), return_dict=True)[0]
    return states
