"""T5 and mT5 written for what PPO on a CPU does with them; same weights, same numbers up to rounding.

Prompts are laid end to end, so that no time goes into padding, with a norm and an attention that make few passes
(rms_norm.py, packed_attention.py). transformers' own modules are kept and called where weights are, so that adapters
keep working; what is passed over is the code between them, and only where nobody has changed it.
Leaves out: one token at a time (t5_decoder.py), and GPUs, fewer bits than float32, gradient checkpointing, and
relatives with another attention (LongT5, UMT5): they run as transformers has them.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.models.mt5 import modeling_mt5
from transformers.models.t5 import modeling_t5

from trl_rewards_plugin.ppo.acceleration.fixed_shapes import shapes_are_fixed
from trl_rewards_plugin.ppo.acceleration.packed_attention import packed_attention
from trl_rewards_plugin.ppo.acceleration.rms_norm import rms_norm

_MODELS = (modeling_t5.T5ForConditionalGeneration, modeling_mt5.MT5ForConditionalGeneration)
_STACKS = (modeling_t5.T5Stack, modeling_mt5.MT5Stack)
_NORMS = (modeling_t5.T5LayerNorm, modeling_mt5.MT5LayerNorm)
_ATTENTIONS = (modeling_t5.T5Attention, modeling_mt5.MT5Attention)
_BLOCKS = (modeling_t5.T5Block, modeling_mt5.MT5Block)
_LAYERS = {
    "SelfAttention": (modeling_t5.T5LayerSelfAttention, modeling_mt5.MT5LayerSelfAttention),
    "EncDecAttention": (modeling_t5.T5LayerCrossAttention, modeling_mt5.MT5LayerCrossAttention),
}
_FEEDING_LAYERS = (modeling_t5.T5LayerFF, modeling_mt5.MT5LayerFF)
# Prompts are attended to one by one: short ones of a narrow model take longer so than with their padding. From so many
# tokens x width in the mean prompt on they do not, at widths from 64 to 512 (benchmarks/README.md).
_LEAST_A_PROMPT = 4096
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain_t5(stack: nn.Module) -> bool:
    """Whether an encoder or decoder is T5's or mT5's as transformers builds it.

    False where modules were exchanged, wrapped or compiled or have hooks (FSDP, ZeRO-3, device maps), and where
    dropout or gradient checkpointing is at work. A change of transformers' classes themselves is not seen.
    """
    # Apex's norm, which older transformers take where it is installed, calls its variance_epsilon otherwise.
    return (
        all(type(part) in kinds and not _is_changed(part) for part, kinds in _passed_over(stack))
        and hasattr(stack.final_layer_norm, "variance_epsilon")
        and not any(_acts(part) for part in stack.modules())
    )


def _passed_over(stack: Any) -> Iterator[tuple[nn.Module, tuple[type, ...]]]:
    """The modules whose own forward pass is passed over, each before its parts, and what they must be."""
    yield stack, _STACKS
    yield stack.final_layer_norm, _NORMS
    for block in stack.block:
        yield block, _BLOCKS
        *attending, feeding = block.layer
        for layer, name in zip(attending, _LAYERS, strict=False):  # an encoder has no EncDecAttention
            yield layer, _LAYERS[name]
            yield getattr(layer, name), _ATTENTIONS
            yield layer.layer_norm, _NORMS
        yield feeding, _FEEDING_LAYERS
        yield feeding.layer_norm, _NORMS


def _is_changed(part: nn.Module) -> bool:
    """Whether a call of the module does more than its class says; transformers' hooks that record outputs aside."""
    hooks = [hook for name in _HOOKS for hook in getattr(part, name).values()]
    foreign = [hook for hook in hooks if getattr(hook, "__module__", "") != "transformers.utils.output_capturing"]
    return bool(foreign) or "forward" in vars(part) or part._compiled_call_impl is not None


def _acts(part: nn.Module) -> bool:
    """Whether a dropout, none of which is called, would do anything, or a part is computed again for its gradient."""
    if isinstance(part, nn.Dropout) and _is_changed(part):
        return True
    dropout = part.p if isinstance(part, nn.Dropout) else part.dropout if type(part) in _ATTENTIONS else 0.0
    return part.training and (bool(dropout) or bool(getattr(part, "gradient_checkpointing", False)))


def has_plain_decoder(model: PreTrainedModel) -> bool:
    """Whether a model is T5 or mT5 with a plain decoder below its output matrix."""
    return type(model) in _MODELS and not _is_changed(model) and is_plain_t5(cast(Any, model).decoder)


def runs_packed(part: PreTrainedModel, prompt_mask: Tensor) -> bool:
    """Whether a plain T5, or a part of it, reads prompts (B, S) end to end: in float32 on a CPU, where that pays."""
    if shapes_are_fixed():  # which prompts are short is a matter of data
        return False
    exact = all(weight.dtype == torch.float32 for weight in part.parameters())
    if not exact or part.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    width: int = cast(Any, part).config.d_model
    return int(prompt_mask.sum()) * width >= _LEAST_A_PROMPT * len(prompt_mask)


def encode_packed(encoder: PreTrainedModel, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """The last hidden states (B, S, H) of a plain T5 encoder for prompts (B, S), padded on the right; 0 on padding."""
    stack = cast(Any, encoder)
    lengths, places = _lengths_and_places(prompt_mask)
    hidden: Tensor = stack.embed_tokens(prompt_ids.flatten()[places])
    bias = relative_bias(stack.block[0].layer[0].SelfAttention, _distances(max(lengths)))
    for block in stack.block:
        attending, feeding = block.layer
        attention = attending.SelfAttention
        normed = _norm(attending.layer_norm, hidden)
        attended = packed_attention(attention.q(normed), attention.k(normed), attention.v(normed), bias, lengths)
        hidden = hidden + attention.o(attended)
        hidden = hidden + feeding.DenseReluDense(_norm(feeding.layer_norm, hidden))
    states = hidden.new_zeros(prompt_ids.numel(), hidden.shape[-1])
    states = states.index_copy(0, places, _norm(stack.final_layer_norm, hidden))
    return states.view(*prompt_ids.shape, -1)


def decode_packed(
    model: PreTrainedModel, encoder_states: Tensor, prompt_mask: Tensor, decoder_input_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) and last hidden states (B, T, H) of a model with a plain decoder.

    Args:
        encoder_states, prompt_mask: (B, S, H) and (B, S), padded on the right.
        decoder_input_ids: (B, T).
    """
    stack = cast(Any, model).decoder
    lengths, places = _lengths_and_places(prompt_mask)
    prompts = encoder_states.flatten(0, 1).index_select(0, places)
    distances = _distances(decoder_input_ids.shape[1])
    bias = relative_bias(stack.block[0].layer[0].SelfAttention, distances).masked_fill(distances > 0, -torch.inf)
    hidden: Tensor = stack.embed_tokens(decoder_input_ids)
    for block in stack.block:
        attending, crossing, feeding = block.layer
        hidden = hidden + _attended(attending.SelfAttention, _norm(attending.layer_norm, hidden), bias)
        normed = _norm(crossing.layer_norm, hidden)
        hidden = hidden + _attended_prompts(crossing.EncDecAttention, normed, prompts, lengths)
        hidden = hidden + feeding.DenseReluDense(_norm(feeding.layer_norm, hidden))
    hidden = _norm(stack.final_layer_norm, hidden)
    return logits(model, hidden), hidden


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits (B, T, V) of a plain decoder's last hidden states (B, T, H)."""
    whole = cast(Any, model)
    # Where T5's output matrix is tied to its embeddings, what it is given is scaled; mT5's never is.
    if isinstance(model, modeling_t5.T5ForConditionalGeneration) and whole.config.scale_decoder_outputs:
        hidden = hidden * whole.model_dim**-0.5
    output: Tensor = whole.lm_head(hidden)
    return output


def relative_bias(attention: Any, distances: Tensor) -> Tensor:
    """What a stack's first attention adds to its scores: distances (Q, K), key minus query, -> (heads, Q, K)."""
    bucket = attention._relative_position_bucket(
        distances,
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias: Tensor = attention.relative_attention_bias(bucket).permute(2, 0, 1)
    return bias.contiguous()


def _lengths_and_places(mask: Tensor) -> tuple[list[int], Tensor]:
    """Tokens of each row of (B, S), and the places (N,) of all of them in the flattened batch."""
    return mask.sum(1).tolist(), mask.flatten().nonzero()[:, 0]


def _distances(length: int) -> Tensor:
    """Key's position minus query's, (L, L)."""
    positions = torch.arange(length)
    return positions - positions.unsqueeze(1)


def _norm(module: Any, values: Tensor) -> Tensor:
    return rms_norm(values, module.weight, module.variance_epsilon)


def _attended(attention: Any, normed: Tensor, bias: Tensor) -> Tensor:
    """Attention of responses (B, T, H) to themselves, with what is added to the scores (heads, T, T)."""
    query, key, value = (
        project(normed).unflatten(2, (attention.n_heads, -1)).transpose(1, 2)
        for project in (attention.q, attention.k, attention.v)
    )
    output = scaled_dot_product_attention(query, key, value, bias.unsqueeze(0), scale=1.0)
    attended: Tensor = attention.o(output.transpose(1, 2).flatten(2))
    return attended


def _attended_prompts(attention: Any, normed: Tensor, prompts: Tensor, lengths: list[int]) -> Tensor:
    """Attention of responses (B, T, H) to their prompts, which lie end to end (N, H)."""
    queries = attention.q(normed).unflatten(2, (attention.n_heads, -1)).transpose(1, 2).split(1)
    keys, values = (
        project(prompts).unflatten(1, (attention.n_heads, -1)).transpose(0, 1).unsqueeze(0).split(lengths, dim=2)
        for project in (attention.k, attention.v)
    )
    rows = [
        scaled_dot_product_attention(query, key, value, scale=1.0)
        for query, key, value in zip(queries, keys, values, strict=True)
    ]
    attended: Tensor = attention.o(torch.cat(rows).transpose(1, 2).flatten(2))
    return attended
