"""T5's position bias and mask, joined once for all layers of a pass; transformers joins them again in each.

Leaves out: models whose layers each have a bias of their own (UMT5, LongT5).
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

JOINED_BIAS = "sdpa_joined_bias"  # an attention implementation's name
_ALIGNED = 8  # elements; SDPA pads a copy of any mask whose rows are not aligned to that, in every layer


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


AttentionInterface.register(JOINED_BIAS, cast(Any, _attend))
AttentionMaskInterface.register(JOINED_BIAS, sdpa_mask)
