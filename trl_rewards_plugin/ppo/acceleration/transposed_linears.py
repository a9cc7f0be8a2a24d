"""Patches `forward` of linear layers while responses are sampled on a CPU.

Of a few rows x, (W x^T)^T is up to four times as fast as x W^T, because it reads W in the order in which it lies in
memory (benchmarks/README.md). The sums are the same up to rounding.
Leaves out: GPUs, lower precision than float32, and passes with gradient, where nothing is patched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

_MOST_ROWS = 64


@contextmanager
def transposed_linears(model: nn.Module) -> Iterator[None]:
    """Within it the model's plain float32 linear layers on the CPU transpose their product where rows are few.

    Where gradients or autocast are on as it is entered, nothing is changed.
    """
    is_usual = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    patched = [] if is_usual else [module for module in model.modules() if _is_plain(module)]
    for module in patched:
        cast(Any, module).forward = _transposed(module)
    try:
        yield
    finally:
        for module in patched:
            vars(module).pop("forward", None)  # another thread that samples from the model may have been sooner


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a plain linear layer, its forward pass its class's own (device maps set another)."""
    return (
        type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
    )


def _transposed(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A forward pass (..., K) -> (..., N) of the module."""
    usual, own = module.forward, module._parameters  # looked up by name each time: they may be replaced
    outputs, inputs = module.weight.shape

    def forward(values: Tensor) -> Tensor:
        weight, bias = own["weight"], own["bias"]
        rows = values.numel() // inputs
        if not 1 < rows <= _MOST_ROWS:
            return usual(values)
        # The layer's own product with the two exchanged: (N, K) x (rows, K)^T.
        product = nn.functional.linear(cast(Tensor, weight), values.reshape(rows, inputs)).t().contiguous()
        if bias is not None:
            product += bias
        return product.view(*values.shape[:-1], outputs)

    return forward
