"""Faster ways to the same numbers: all that architectures/ asks this room for.

Where the device, the precision or the model is not one that this room knows, transformers' own code runs.
Leaves out: graphs (static_calls.py), and what else is no matter of an architecture.
"""

from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm, MT5PreTrainedModel
from transformers.models.t5.modeling_t5 import T5LayerNorm, T5PreTrainedModel

from trl_rewards_plugin.ppo.acceleration.fused_norm import FusedNorm
from trl_rewards_plugin.ppo.acceleration.joined_bias import JOINED_BIAS
from trl_rewards_plugin.ppo.acceleration.packed_t5 import encode_packed, is_plain_encoder, runs_packed


def encode(encoder: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor | None:
    """The encoder's last hidden states (B, S, H) of prompts (B, S), 0 on padding; None where it has to be run."""
    packed = is_plain_encoder(encoder) and runs_packed(encoder, prompt_mask)
    return encode_packed(encoder, prompt_ids, prompt_mask) if packed else None


def exchange_modules(model: nn.Module) -> None:
    """Exchanges modules of a built model for faster ones: T5's attention and norms, and the tanh form of GELU."""
    for part in list(model.modules()):
        if isinstance(part, (T5PreTrainedModel, MT5PreTrainedModel)) and part.config._attn_implementation == "sdpa":
            part.set_attn_implementation(JOINED_BIAS)  # what `save_pretrained` writes is as it was
        for name, child in part.named_children():
            if isinstance(child, NewGELUActivation):  # eight passes over the activations, where torch takes one
                setattr(part, name, nn.GELU(approximate="tanh"))
            elif type(child) in (T5LayerNorm, MT5LayerNorm):
                # What the last norm gives is also read by the critic, in float32.
                setattr(part, name, FusedNorm(child, rounds=name != "final_layer_norm"))
