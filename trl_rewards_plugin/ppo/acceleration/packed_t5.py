"""The encoder of T5 and mT5 over prompts laid end to end, on a CPU: no time goes into padding.

transformers' own modules are called where weights are, so that adapters keep working; the code between them is
replaced, where nobody has changed it. Leaves out relatives with another attention (LongT5, UMT5).
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.models.mt5 import modeling_mt5 as mt5
from transformers.models.t5 import modeling_t5 as t5

from trl_rewards_plugin.ppo.acceleration.fixed_shapes import shapes_are_fixed

_ATTENTIONS = (t5.T5Attention, mt5.MT5Attention)
# Prompts are attended to one by one: short ones of a narrow model take longer than with their padding. From this many
# tokens x width in the mean prompt on they do not, at widths from 64 to 512 (benchmarks/README.md).
_LEAST_A_PROMPT = 4096
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain_encoder(stack: nn.Module) -> bool:
    """Whether an encoder is T5's or mT5's as transformers builds it.

    False where modules were exchanged, wrapped or compiled or have hooks (FSDP, ZeRO-3, device maps), and where
    dropout or gradient checkpointing is active. A change of transformers' classes themselves is not seen.
    """
    plain = all(type(part) in kinds and not _is_changed(part) for part, kinds in _replaced(stack))
    return plain and not any(_is_active(part) for part in stack.modules())


def _replaced(stack: Any) -> Iterator[tuple[nn.Module, tuple[type, ...]]]:
    """The modules whose own forward pass is replaced, each before its parts, and what they must be."""
    yield stack, (t5.T5Stack, mt5.MT5Stack)
    for block in stack.block:
        yield block, (t5.T5Block, mt5.MT5Block)
        attending, feeding = block.layer
        yield attending, (t5.T5LayerSelfAttention, mt5.MT5LayerSelfAttention)
        yield attending.SelfAttention, _ATTENTIONS
        yield feeding, (t5.T5LayerFF, mt5.MT5LayerFF)


def _is_changed(part: nn.Module) -> bool:
    """Whether a call of the module does more than its class says; transformers' hooks that record outputs aside."""
    hooks = [hook for name in _HOOKS for hook in getattr(part, name).values()]
    foreign = [hook for hook in hooks if getattr(hook, "__module__", "") != "transformers.utils.output_capturing"]
    return bool(foreign) or "forward" in vars(part) or part._compiled_call_impl is not None


def _is_active(part: nn.Module) -> bool:
    """Whether a dropout, none of which is called, would do anything, or a part is recomputed for its gradient."""
    if isinstance(part, nn.Dropout) and _is_changed(part):
        return True
    dropout = part.p if isinstance(part, nn.Dropout) else part.dropout if type(part) in _ATTENTIONS else 0.0
    return part.training and (bool(dropout) or bool(getattr(part, "gradient_checkpointing", False)))


def runs_packed(encoder: nn.Module, prompt_mask: Tensor) -> bool:
    """Whether a plain encoder reads prompts (B, S) end to end: in float32 on a CPU, where that pays."""
    if shapes_are_fixed():  # which prompts are short is a matter of data
        return False
    stack = cast(PreTrainedModel, encoder)
    exact = all(weight.dtype == torch.float32 for weight in stack.parameters())
    if not exact or stack.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    width: int = stack.config.d_model
    return int(prompt_mask.sum()) * width >= _LEAST_A_PROMPT * len(prompt_mask)


def encode_packed(encoder: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """The last hidden states (B, S, H) of a plain encoder for prompts (B, S), padded on the right; 0 on padding."""
    stack = cast(Any, encoder)
    lengths = prompt_mask.sum(1).tolist()
    places = prompt_mask.flatten().nonzero()[:, 0]  # (N,) of all tokens in the flattened batch
    hidden: Tensor = stack.embed_tokens(prompt_ids.flatten()[places])
    longest = max(lengths)
    bias = stack.block[0].layer[0].SelfAttention.compute_bias(longest, longest)[0].contiguous()  # (heads, L, L)
    for block in stack.block:
        attending, feeding = block.layer
        attention = attending.SelfAttention
        normed = attending.layer_norm(hidden)
        attended = packed_attention(attention.q(normed), attention.k(normed), attention.v(normed), bias, lengths)
        hidden = hidden + attention.o(attended)
        hidden = hidden + feeding.DenseReluDense(feeding.layer_norm(hidden))
    states = hidden.new_zeros(prompt_ids.numel(), hidden.shape[-1])
    states = states.index_copy(0, places, stack.final_layer_norm(hidden))
    return states.view(*prompt_ids.shape, -1)


def packed_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, lengths: Sequence[int]) -> Tensor:
    """softmax(query key^T + bias) value, each sequence for itself; T5 does not scale the scores (arXiv 1910.10683).

    Query, key, value and result are (N, heads * D), sequences of `lengths` one after the other; the bias (heads, L, L)
    is that of the longest, of which a shorter one uses the upper left corner.
    """
    return cast(Tensor, cast(Any, _PackedAttention).apply(query, key, value, bias, lengths))


def _by_head(values: Tensor, heads: int) -> Tensor:
    """(N, heads * D) -> (heads, N, D), the same memory."""
    return cast(Tensor, values.unflatten(1, (heads, -1)).transpose(0, 1))


def _spans(lengths: Sequence[int]) -> Iterator[tuple[int, slice]]:
    for length, end in zip(lengths, accumulate(lengths), strict=True):
        yield length, slice(end - length, end)


class _PackedAttention(torch.autograd.Function):
    """Keeps one softmax per sequence. With a trained bias torch's attention keeps as much for each operation."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, lengths: Sequence[int]) -> Tensor:
        output = torch.empty_like(query)
        q, k, v, o = (_by_head(values, len(bias)) for values in (query, key, value, output))
        weights = []
        for length, span in _spans(lengths):
            scores = torch.baddbmm(bias[:, :length, :length], q[:, span], k[:, span].mT)
            weights.append(scores.softmax(-1))
            o[:, span] = weights[-1] @ v[:, span]
        ctx.save_for_backward(query, key, value, bias, output, *weights)
        ctx.lengths = lengths
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, output, *weights = ctx.saved_tensors
        gradients = [torch.empty_like(query) for _ in range(3)]
        d_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        q, k, v, g, o, d_q, d_k, d_v = (
            _by_head(values, len(bias)) for values in (query, key, value, gradient, output, *gradients)
        )
        # Of the softmax: d score = weight * (d weight - sum of weight * d weight), and that sum is gradient . output.
        mean = torch.linalg.vecdot(g, o).unsqueeze(-1)
        for (length, span), weight in zip(_spans(ctx.lengths), weights, strict=True):
            d_v[:, span] = weight.mT @ g[:, span]
            d_scores = (g[:, span] @ v[:, span].mT).sub_(mean[:, span]).mul_(weight)
            d_q[:, span] = d_scores @ k[:, span]
            d_k[:, span] = d_scores.mT @ q[:, span]
            if d_bias is not None:
                d_bias[:, :length, :length] += d_scores
        return *gradients, d_bias, None
