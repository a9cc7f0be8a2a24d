"""T5's attention over sequences laid end to end: no padding, no mask, and a backward pass of its own.

Where the relative position bias is trained, torch's attention keeps a bias as large as the scores for each operation;
here one softmax per sequence is kept (benchmarks/README.md).
Leaves out: projections and the bias itself (packed_t5.py), dropout, and second derivatives.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def packed_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, lengths: Sequence[int]) -> Tensor:
    """softmax(query key^T + bias) value, each sequence for itself; T5 does not scale the scores (arXiv 1910.10683).

    Args:
        query, key, value: (N, heads * D), sequences one after the other.
        bias: (heads, L, L) of the longest sequence; a shorter one uses its upper left corner.
        lengths: of the sequences, N in all.

    Returns:
        (N, heads * D).
    """
    return cast(Tensor, cast(Any, _PackedAttention).apply(query, key, value, bias, lengths))


def _by_head(values: Tensor, heads: int) -> Tensor:
    """(N, heads * D) -> (heads, N, D), the same memory."""
    return cast(Tensor, values.unflatten(1, (heads, -1)).transpose(0, 1))


def _spans(lengths: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Length and place of each sequence."""
    for length, end in zip(lengths, accumulate(lengths), strict=True):
        yield length, slice(end - length, end)


class _PackedAttention(torch.autograd.Function):
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
