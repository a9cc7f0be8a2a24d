"""Replaces T5's norm on a GPU, six kernels in transformers, by torch's one; a CPU keeps transformers' own.

Under autocast the norm's output is cast at once, not three times by the products that read it.
"""

from typing import cast

import torch
from torch import Tensor, nn
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm


def fuse_norms(model: nn.Module) -> None:
    """Exchanges the norms of a T5 or mT5; each keeps its weight, under its name."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            if type(child) in (T5LayerNorm, MT5LayerNorm):
                # What the last norm gives is also read by the critic, in float32.
                setattr(part, name, FusedNorm(child, rounds=name != "final_layer_norm"))


class FusedNorm(nn.Module):
    """A T5 norm that is one kernel on a GPU."""

    def __init__(self, norm: nn.Module, rounds: bool):
        super().__init__()
        self.weight: Tensor = cast(Tensor, norm.weight)
        self.variance_epsilon = cast(float, norm.variance_epsilon)
        self.rounds = rounds
        self._usual = type(norm).forward

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., H) -> (..., H)."""
        if hidden_states.device.type != "cuda":
            usual: Tensor = self._usual(self, hidden_states)
            return usual
        lower = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") and self.rounds else None
        return rms_norm(hidden_states, self.weight, self.variance_epsilon, lower)


def rms_norm(values: Tensor, weight: Tensor, epsilon: float, lower: torch.dtype | None = None) -> Tensor:
    """values / sqrt(mean(values^2) + epsilon) * weight over the last dimension (arXiv 1910.07467), in float32.

    Args:
        lower: precision of the result; the weight's if left out.
    """
    with torch.autocast(values.device.type, enabled=False):
        normed = nn.functional.rms_norm(values.float(), weight.shape, weight.float(), epsilon)
    return normed.to(lower or weight.dtype)
