"""T5 and mT5 written for what PPO on a CPU does with them; same weights, same numbers up to rounding.

The encoder reads prompts laid end to end, so that no time goes into padding, with a norm and an attention that make
few passes (rms_norm.py, packed_attention.py). transformers' own modules are kept and called where weights are, so that
adapters keep working; what is passed over is the code between them, and only where nobody has changed it.
Leaves out: GPUs, fewer bits than float32, gradient checkpointing, and relatives with another attention (LongT5, UMT5):
they run as transformers has them.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.mt5 import modeling_mt5
from transformers.models.t5 import modeling_t5

from trl_rewards_plugin.ppo.packed_attention import packed_attention
from trl_rewards_plugin.ppo.rms_norm import rms_norm

_STACKS = (modeling_t5.T5Stack, modeling_mt5.MT5Stack)
_NORMS = (modeling_t5.T5LayerNorm, modeling_mt5.MT5LayerNorm)
_ATTENTIONS = (modeling_t5.T5Attention, modeling_mt5.MT5Attention)
# The modules whose own forward pass is passed over.
_BETWEEN = (
    *_STACKS,
    *_NORMS,
    *_ATTENTIONS,
    *(modeling_t5.T5Block, modeling_t5.T5LayerSelfAttention, modeling_t5.T5LayerCrossAttention, modeling_t5.T5LayerFF),
    *(modeling_mt5.MT5Block, modeling_mt5.MT5LayerSelfAttention),
    *(modeling_mt5.MT5LayerCrossAttention, modeling_mt5.MT5LayerFF),
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain_t5(stack: nn.Module) -> bool:
    """Whether an encoder or decoder is T5's or mT5's as transformers builds it.

    False where modules were exchanged or have hooks (FSDP, ZeRO-3, device maps), and where dropout or gradient
    checkpointing is at work.
    """
    if type(stack) not in _STACKS:
        return False
    between = [part for part in stack.modules() if type(part) in _BETWEEN]
    a_layer = 9 if cast(Any, stack).is_decoder else 6
    return (
        len(between) == 2 + a_layer * len(cast(Any, stack).block)
        and not any(_is_changed(part) for part in between)
        and not (stack.training and any(_is_random_or_recomputed(part) for part in stack.modules()))
    )


def _is_changed(part: nn.Module) -> bool:
    """Whether a call of the module does more than its class says; transformers' hooks that record outputs aside."""
    hooks = [hook for name in _HOOKS for hook in getattr(part, name).values()]
    foreign = [hook for hook in hooks if getattr(hook, "__module__", "") != "transformers.utils.output_capturing"]
    return bool(foreign) or "forward" in vars(part)


def _is_random_or_recomputed(part: nn.Module) -> bool:
    dropout = part.p if isinstance(part, nn.Dropout) else part.dropout if type(part) in _ATTENTIONS else 0.0
    return bool(dropout) or bool(getattr(part, "gradient_checkpointing", False))


def encodes_packed(encoder: PreTrainedModel) -> bool:
    """Whether prompts of this encoder may be laid end to end: a plain T5's in float32 on a CPU."""
    return (
        is_plain_t5(encoder)
        and encoder.device.type == "cpu"
        and encoder.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def encode_packed(encoder: PreTrainedModel, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """The last hidden states (B, S, H) of a plain T5 encoder for prompts (B, S), padded on the right; 0 on padding."""
    stack = cast(Any, encoder)
    lengths = prompt_mask.sum(1).tolist()
    hidden: Tensor = stack.embed_tokens(prompt_ids[prompt_mask])
    positions = torch.arange(max(lengths))
    bias = relative_bias(stack.block[0].layer[0].SelfAttention, positions - positions.unsqueeze(1))
    for block in stack.block:
        attending, feeding = block.layer
        attention = attending.SelfAttention
        normed = _norm(attending.layer_norm, hidden)
        attended = packed_attention(attention.q(normed), attention.k(normed), attention.v(normed), bias, lengths)
        hidden = hidden + attention.o(attended)
        hidden = hidden + feeding.DenseReluDense(_norm(feeding.layer_norm, hidden))
    states = hidden.new_zeros(*prompt_ids.shape, hidden.shape[-1])
    return states.index_put((prompt_mask,), _norm(stack.final_layer_norm, hidden))


def _norm(module: Any, values: Tensor) -> Tensor:
    return rms_norm(values, module.weight, module.variance_epsilon)


def relative_bias(attention: Any, distances: Tensor) -> Tensor:
    """What a stack's first attention adds to its scores: distances (Q, K), key minus query, -> (heads, Q, K)."""
    bucket = attention._relative_position_bucket(
        distances,
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias: Tensor = attention.relative_attention_bias(bucket).permute(2, 0, 1)
    return bias.contiguous()
