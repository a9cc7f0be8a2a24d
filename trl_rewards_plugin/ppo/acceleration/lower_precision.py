"""Weights in autocast's precision, cast all together: a few kernels instead of one a matrix in every pass."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from trl_rewards_plugin.ppo.acceleration.fixed_shapes import shapes_are_fixed


def autocast_dtype(model: nn.Module) -> torch.dtype | None:
    """The precision of a model's products by autocast; None without it."""
    kind = next(model.parameters()).device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def exact_matrices(model: nn.Module) -> dict[str, Tensor]:
    """The float32 matrices of a model's linear layers, by name."""
    layers = ((name, part._parameters) for name, part in model.named_modules() if isinstance(part, nn.Linear))
    found = {f"{name}.weight": own["weight"] for name, own in layers if "weight" in own}  # else it is computed anew
    return {name: weight for name, weight in found.items() if weight is not None and weight.dtype == torch.float32}


def cast_together(model: Any, *arguments: Any, **named: Any) -> Any:
    """A call of a `PolicyWithValueHead`, under autocast and among fixed shapes with its matrices cast together."""
    dtype = autocast_dtype(model)
    if dtype is None or not shapes_are_fixed():
        return model(*arguments, **named)
    # In the backward pass the casts are gone, and a part that is run again there would read other weights.
    if any(getattr(part, "gradient_checkpointing", False) for part in model.modules()):
        return model(*arguments, **named)
    output_matrix = model.core.get_output_embeddings().weight  # may be read again in the backward pass
    learning: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}  # apart: what comes from a function that learns gets a gradient
    for name, weight in exact_matrices(model).items():
        if weight is not output_matrix and not name.startswith("value_head"):  # which computes in float32
            (learning if weight.requires_grad else frozen)[name] = weight
    lower = dict(zip(frozen, _cast(tuple(frozen.values()), dtype), strict=True))
    lower |= zip(learning, cast(Any, _Cast).apply(dtype, *learning.values()), strict=True)
    return functional_call(model, lower, arguments, named, tie_weights=False)


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _cast(weights, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        exact = iter(_cast(tuple(gradient for gradient in gradients if gradient is not None), torch.float32))
        return None, *(None if gradient is None else next(exact) for gradient in gradients)


def _cast(values: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    cast_values = tuple(torch.empty_like(value, dtype=dtype) for value in values)
    if values:
        torch._foreach_copy_(cast_values, values)
    return cast_values
