"""Faster ways to the same numbers: all that architectures/ asks this room for, with T5's norm and position bias.

Where the device, the precision or the model is not one that this room knows, transformers' own code runs.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm, MT5PreTrainedModel
from transformers.models.t5.modeling_t5 import T5LayerNorm, T5PreTrainedModel

from trl_rewards_plugin.ppo.acceleration.packed_t5 import encode_packed, is_plain_encoder, runs_packed

_JOINED_BIAS = "sdpa_joined_bias"  # an attention implementation's name
_ALIGNED = 8  # elements; SDPA pads a copy of any mask whose rows are not aligned to that, in every layer


def encode(encoder: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor | None:
    """The encoder's last hidden states (B, S, H) of prompts (B, S), 0 on padding; None where it has to be run."""
    packed = is_plain_encoder(encoder) and runs_packed(encoder, prompt_mask)
    return encode_packed(encoder, prompt_ids, prompt_mask) if packed else None


def exchange_modules(model: nn.Module) -> None:
    """Exchanges modules of a built model for faster ones: T5's attention and norms, and the tanh form of GELU."""
    for part in list(model.modules()):
        if isinstance(part, (T5PreTrainedModel, MT5PreTrainedModel)) and part.config._attn_implementation == "sdpa":
            part.set_attn_implementation(_JOINED_BIAS)  # what `save_pretrained` writes is as it was
        for name, child in part.named_children():
            if isinstance(child, NewGELUActivation):  # eight passes over the activations, where torch takes one
                setattr(part, name, nn.GELU(approximate="tanh"))
            elif type(child) in (T5LayerNorm, MT5LayerNorm):
                # What the last norm gives is also read by the critic, in float32.
                setattr(part, name, FusedNorm(child, rounds=name != "final_layer_norm"))


# ---- T5's norm ----


class FusedNorm(nn.Module):
    """In the place of a norm of T5 or mT5, whose weight it keeps: one kernel on a GPU, few passes on a CPU."""

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


# ---- T5's position bias and mask, joined once for all layers of a pass; transformers joins them again in each ----
# Not of models whose layers each have a bias of their own (UMT5, LongT5).


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> Any:
    """transformers' `sdpa`; query (B, heads, T, D), mask (B, 1, T, S), `position_bias` (1, heads, T, S)."""
    bias = settings.pop("position_bias", None)
    if bias is not None and (attention_mask is None or attention_mask.dtype == torch.bool):
        attention_mask, bias = _joined(module, query, bias, attention_mask), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, position_bias=bias, **settings)


def _joined(module: Any, query: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """What is added to the scores: the bias, and the lowest number at masked positions."""
    # Kept on the bias, which the first layer of a pass makes and hands to all others.
    kept = getattr(bias, "_joined", None)
    if kept is not None and kept[0] is mask:
        return cast(Tensor, kept[1])
    visible = mask
    if mask is None and module.is_causal and query.shape[2] > 1:
        visible = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).tril()
    # Cross-attention has no position bias: it is 0 for all heads and tokens.
    joined = (bias[:, :1, :1] if module.is_decoder and not module.is_causal else bias).to(query.dtype).contiguous()
    if visible is not None:
        joined = torch.where(visible, joined, torch.finfo(query.dtype).min)
    if joined.device.type == "cuda" and joined.shape[-1] % _ALIGNED:
        width = joined.shape[-1]
        joined = nn.functional.pad(joined, (0, -width % _ALIGNED))[..., :width]
    # Not where the bias would keep itself alive, by a view or through the gradient of a leaf: nothing frees that ring.
    if joined is not bias and joined._base is not bias and not (bias.is_leaf and bias.requires_grad):
        cast(Any, bias)._joined = (mask, joined)
    return joined


AttentionInterface.register(_JOINED_BIAS, cast(Any, _attend))
AttentionMaskInterface.register(_JOINED_BIAS, sdpa_mask)
