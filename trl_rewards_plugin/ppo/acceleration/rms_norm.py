"""T5's layer norm (RMSNorm, arXiv 1910.07467) in a third of the passes over the activations, in both directions.

Leaves out: lower precision than float32, where T5 computes the mean in float32 all the same.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    """values / sqrt(mean(values^2) + eps) * weight over the last dimension: (..., H), (H,) -> (..., H)."""
    output: Tensor = cast(Any, _RMSNorm).apply(values, weight, eps)
    return output


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, eps: float) -> Tensor:
        mean_square: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True).square_().div_(values.shape[-1])
        scale = mean_square.add_(eps).rsqrt_()
        normed: Tensor = values * scale
        ctx.save_for_backward(normed, weight, scale)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normed, weight, scale = ctx.saved_tensors
        d_weight = (gradient * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        d_normed = gradient * weight
        # d values = scale * (d normed - normed * mean(d normed * normed))
        mean = torch.linalg.vecdot(d_normed, normed).div_(normed.shape[-1]).unsqueeze(-1)
        return d_normed.sub_(normed * mean).mul_(scale), d_weight, None
