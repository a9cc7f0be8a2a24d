"""T5's norm (RMSNorm, arXiv 1910.07467): one kernel on a GPU, few passes on a CPU in float32, else transformers'."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FusedNorm(nn.Module):
    """In the place of a norm of T5 or mT5, whose weight it keeps."""

    def __init__(self, norm: nn.Module, rounds: bool):
        super().__init__()
        self.weight: Tensor = cast(Tensor, norm.weight)
        self.variance_epsilon = cast(float, norm.variance_epsilon)
        self.rounds = rounds  # under autocast the output is cast once, not by each of the products that read it
        self._usual = type(norm).forward

    def forward(self, hidden_states: Tensor) -> Tensor:
        if hidden_states.device.type == "cuda":
            lower = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") and self.rounds else None
            return rms_norm(hidden_states, self.weight, self.variance_epsilon, lower)
        if hidden_states.dtype == self.weight.dtype == torch.float32 and hidden_states.device.type == "cpu":
            return cast(Tensor, cast(Any, _FewPasses).apply(hidden_states, self.weight, self.variance_epsilon))
        return cast(Tensor, self._usual(self, hidden_states))


def rms_norm(values: Tensor, weight: Tensor, epsilon: float, lower: torch.dtype | None = None) -> Tensor:
    """RMSNorm (arXiv 1910.07467): values / sqrt(mean(values^2) + epsilon) * weight by rows, computed in float32."""
    with torch.autocast(values.device.type, enabled=False):
        normed = nn.functional.rms_norm(values.float(), weight.shape, weight.float(), epsilon)
    return normed.to(lower or weight.dtype)


class _FewPasses(torch.autograd.Function):
    """As `rms_norm`, in a third of transformers' passes over the activations; torch's own is slower on a CPU."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        mean_square: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True).square_().div_(values.shape[-1])
        scale = mean_square.add_(epsilon).rsqrt_()
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
