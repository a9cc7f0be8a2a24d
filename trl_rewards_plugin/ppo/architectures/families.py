"""One record a family of architectures: all that it needs beyond the interface that encoder-decoders share.

A model type without a record needs nothing. What is recorded here was read in transformers 5.23.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.acceleration import seam
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig

_NO_LIMIT = 2**62  # larger than the number of tokens in any batch


@dataclass(frozen=True)
class Family:
    """What is special about models of some types."""

    model_types: tuple[str, ...]  # `config.model_type` of its members
    scored_token_by_token: bool = False  # the forward pass over a whole response is not what generation computes
    positions_after_pad: bool = False  # position embeddings begin behind the pad token's id
    positions_ahead: int = 0  # that the decoder looks beyond its last token
    forces_language: bool = False  # responses start with a language code that `generate` forces
    language_may_start: bool = False  # the decoder may start with the language code instead of the EOS
    make_deterministic: Callable[[PreTrainedModel], None] = lambda part: None  # of each part that is a model of it
    kept_dropouts: tuple[str, ...] = ()  # attributes named as a dropout that generation reads, too
    # Refuses settings that it cannot follow, given the encoder's config, the settings and the model's class.
    check: Callable[[Any, Seq2SeqPPOConfig, str], None] = lambda config, args, name: None
    # Whether a decoding step of a model with this config works on buffers of fixed shape: it keeps no count in Python
    # and reads no number from the device, so that a CUDA graph can replay it.
    static_decoding: Callable[[Any], bool] = lambda config: False


def family_of(config: Any) -> Family:
    """The record of a model's or one side's config."""
    return _BY_TYPE.get(config.model_type, Family(()))


# ---- BigBird ----


def _attend_in_full(part: PreTrainedModel) -> None:
    """Else the first batch that is short enough switches to full attention, and dropout on again."""
    if hasattr(part, "set_attention_type"):
        cast(Any, part).set_attention_type("original_full")


def _check_block_sparse(config: Any, args: Seq2SeqPPOConfig, name: str) -> None:
    limit = (5 + 2 * config.num_random_blocks) * config.block_size  # shorter batches are attended to in full
    if config.attention_type == "block_sparse" and args.max_prompt_length > limit:
        expected = f"prompts of at most {limit} tokens for {name} with block-sparse attention, which differs "
        step = "lower max_prompt_length, or load the model with attention_type='original_full'"
        found = f"max_prompt_length={args.max_prompt_length}"
        raise InputError(expected + "between training and generation", found, step)


# ---- Mixtures of experts ----
# A decoder that generates reads one token at a time and never fills an expert; over a whole response it would.


def _route_without_noise(part: PreTrainedModel) -> None:
    """No noise, and no full expert in the decoder; the encoder counts each prompt alone and keeps its capacity."""
    for router in part.modules():
        if hasattr(router, "jitter_noise"):
            router.jitter_noise = cast(Any, 0.0)
        if hasattr(router, "expert_capacity") and part.config.is_decoder:
            router.expert_capacity = cast(Any, _NO_LIMIT)


class _Scaled(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor


def _route_each_token_alone(part: PreTrainedModel) -> None:
    """No full expert: its limit counts the tokens of the whole batch, and the last batch's is kept for training."""
    for module in part.modules():
        if hasattr(module, "moe_eval_capacity_token_fraction"):
            module.moe_eval_capacity_token_fraction = cast(Any, 0.0)
            module.expert_capacity = cast(Any, _NO_LIMIT)
        if hasattr(module, "moe_token_dropout"):
            # In generation experts are scaled by 1 - p instead of dropping tokens with probability p.
            module.token_dropout = _Scaled(1 - cast(float, module.moe_token_dropout))


def _check_experts(config: Any, args: Seq2SeqPPOConfig, name: str) -> None:
    if config.second_expert_policy != "all":
        expected = "experts chosen by the input alone (second_expert_policy='all')"
        found = f"second_expert_policy={config.second_expert_policy!r}, which draws them at random in every pass"
        raise InputError(expected, found, "load the model with second_expert_policy='all'")


# ---- ProphetNet ----


def _encode_without_dropout(part: PreTrainedModel) -> None:
    """Its encoder reads dropout from its config, which the saved model shares."""
    if type(part).__name__ == "ProphetNetEncoder":
        part.config = copy.copy(part.config)
        part.config.dropout = 0.0


def _check_pad(config: Any, args: Seq2SeqPPOConfig, name: str) -> None:
    if config.pad_token_id != 0:
        expected = f"pad_token_id=0 for {name}, whose key-value cache counts positions from it"
        step = "use a vocabulary whose token 0 is the pad, as in the published ones"
        raise InputError(expected, f"pad_token_id={config.pad_token_id}", step)


# ---- The table ----


def _always(config: Any) -> bool:
    return True


FAMILIES = (
    Family(("t5", "mt5", "umt5", "longt5", "blenderbot", "blenderbot-small"), static_decoding=_always),
    Family(("bart", "plbart", "pegasus", "pegasus_x", "marian"), static_decoding=_always),
    # The cache of a layer with a sliding window counts in Python.
    Family(("t5gemma",), static_decoding=lambda config: set(config.decoder.layer_types) == {"full_attention"}),
    # The first mBART starts its decoder with the language, mBART-50 forces it as the others do.
    Family(("mbart",), forces_language=True, language_may_start=True, static_decoding=_always),
    Family(("m2m_100", "seamless_m4t", "seamless_m4t_v2"), forces_language=True),
    Family(
        ("nllb-moe",),
        forces_language=True,
        make_deterministic=_route_each_token_alone,
        kept_dropouts=("moe_token_dropout",),
        check=_check_experts,
    ),
    Family(("switch_transformers",), make_deterministic=_route_without_noise),
    Family(
        ("bigbird_pegasus",), make_deterministic=_attend_in_full, check=_check_block_sparse, static_decoding=_always
    ),
    Family(
        # Its pass over a whole response mixes up the relative positions of its predicting stream (it permutes them in
        # another order than it looks them up), so that a token's probability depends on the response's length.
        ("prophetnet",),
        scored_token_by_token=True,
        positions_after_pad=True,
        positions_ahead=1,  # of the predicting stream
        make_deterministic=_encode_without_dropout,
        check=_check_pad,
    ),
    # Encoders and decoders of pairs (encoder-decoder).
    Family(("big_bird",), make_deterministic=_attend_in_full, check=_check_block_sparse),
    Family(("camembert", "data2vec-text", "longformer", "roberta", "roberta-prelayernorm"), positions_after_pad=True),
    Family(("xlm-roberta", "xlm-roberta-xl", "xmod"), positions_after_pad=True),
)
_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}
_KEPT = {name for family in FAMILIES for name in family.kept_dropouts}


def make_deterministic(model: nn.Module) -> None:
    """Makes a built model compute in `train()` mode, too, what it computes in generation, row by row.

    What is random, or depends on the rest of the batch, is turned off in the modules. The config stays as it is, so
    that the saved model is what it was.
    """
    for part in list(model.modules()):
        if isinstance(part, PreTrainedModel):
            family_of(part.config).make_deterministic(part)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        # Not enough: T5's attention and all of BART read a float attribute of the module.
        for name, value in list(vars(part).items()):
            if ("dropout" in name or "layerdrop" in name) and isinstance(value, float) and name not in _KEPT:
                setattr(part, name, 0.0)
    seam.exchange_modules(model)
