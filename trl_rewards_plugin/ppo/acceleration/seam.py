"""Faster ways to the same numbers: all that architectures/ and policy/ ask this room for.

Each function returns None where the device, the precision or the model is not one that it knows; the caller then runs
transformers' own code.
"""

from contextlib import AbstractContextManager

from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.acceleration import packed_t5
from trl_rewards_plugin.ppo.acceleration.fused_gelu import fuse_gelu
from trl_rewards_plugin.ppo.acceleration.t5_decoder import T5Decoder
from trl_rewards_plugin.ppo.acceleration.transposed_linears import transposed_linears


def exchange_modules(model: nn.Module) -> None:
    """Exchanges modules of a built model for faster ones without weights."""
    fuse_gelu(model)


def encode(encoder: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor | None:
    """The encoder's last hidden states (B, S, H) of prompts (B, S), padded on the right; 0 on padding."""
    if packed_t5.is_plain_t5(encoder) and packed_t5.runs_packed(encoder, prompt_mask):
        return packed_t5.encode_packed(encoder, prompt_ids, prompt_mask)
    return None


def decode(
    model: PreTrainedModel, encoder_states: Tensor, prompt_mask: Tensor, decoder_input_ids: Tensor
) -> tuple[Tensor, Tensor] | None:
    """The teacher-forced pass: logits (B, T, V) and the decoder's last hidden states (B, T, H)."""
    if packed_t5.has_plain_decoder(model) and packed_t5.runs_packed(model, prompt_mask):
        return packed_t5.decode_packed(model, encoder_states, prompt_mask, decoder_input_ids)
    return None


def open_decoder(model: PreTrainedModel, encoder_states: Tensor, prompt_mask: Tensor, steps: int) -> T5Decoder | None:
    """What reads at most `steps` tokens of each response, one by one."""
    return T5Decoder(model, encoder_states, prompt_mask, steps) if T5Decoder.fits(model) else None


def while_sampling(model: nn.Module) -> AbstractContextManager[None]:
    """The context of a decoding loop."""
    return transposed_linears(model)
