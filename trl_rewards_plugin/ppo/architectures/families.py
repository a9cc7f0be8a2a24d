"""What single encoder-decoder families of transformers need beyond the interface that all of them share.

Three functions meet every model: `settle` makes a built model compute in training what it computes in generation,
`run_decoder` is its teacher-forced forward pass, `positions` says how long prompts and responses may be; and
`check_architecture` refuses what cannot work. What is found here was read in transformers 5.23.
Leaves out: special tokens (token_rules.py).
"""

import copy
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.modeling_outputs import MoEModelOutput

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.acceleration.packed_t5 import decode_packed, has_plain_decoder, runs_packed
from trl_rewards_plugin.ppo.architectures.encoder import run_encoder
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.policy.encoded_prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules

# ProphetNet's forward pass over a whole response mixes up the relative positions of its predicting stream (it permutes
# them in another order than it looks them up), so that a token's probability hangs on the response's length. One token
# at a time it is right, which is how it generates; so that is how its responses are scored.
SCORED_TOKEN_BY_TOKEN = ("prophetnet",)

# Position embeddings of RoBERTa and its like begin behind the pad token's id.
_COUNTED_FROM_PAD = (
    "camembert",
    "data2vec-text",
    "longformer",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)

# Larger than any batch has tokens.
_NO_LIMIT = 2**62


class Positions(NamedTuple):
    """Most tokens that a model takes; None where any length will do."""

    encoder: int | None
    decoder: int | None


def positions(model: PreTrainedModel) -> Positions:
    """How many tokens the encoder and the decoder have positions for, as their configs say."""
    encoder, decoder = (_sides_config(model.config, side) for side in ("encoder", "decoder"))
    found = Positions(_side_positions(encoder, "encoder"), _side_positions(decoder, "decoder"))
    if model.config.model_type == "prophetnet":
        # Position 0 is the pad's, and the predicting stream looks one position ahead.
        return Positions(cast(int, found.encoder) - 1, cast(int, found.decoder) - 2)
    return found


def _sides_config(config: Any, side: str) -> Any:
    """The config of one side, where the two have their own (T5Gemma, BERT2BERT)."""
    own = getattr(config, side, None)
    return config if own is None else own.get_text_config()


def _side_positions(config: Any, side: str) -> int | None:
    for name in (f"max_{side}_position_embeddings", "max_position_embeddings"):
        value: int | None = getattr(config, name, None)
        if value is not None:
            return value - int(config.pad_token_id) - 1 if config.model_type in _COUNTED_FROM_PAD else value
    return None


def check_architecture(model: PreTrainedModel, args: Seq2SeqPPOConfig, rules: TokenRules) -> None:
    """Refuses a model whose sampled policy could not be scored, and settings that its architecture cannot follow.

    Raises:
        InputError: responses longer than the decoder has positions for, experts chosen at random, block-sparse
            attention over prompts that reach it, a ProphetNet whose pad is not 0, or gradient checkpointing where
            responses are scored token by token.
    """
    config = model.config
    room = positions(model).decoder
    if room is not None and args.response_length > room - len(rules.forced_ids):
        raise InputError(
            f"response_length of at most {room - len(rules.forced_ids)}, the positions of {type(model).__name__}",
            f"response_length={args.response_length}",
            "lower response_length",
        )
    policy = getattr(config, "second_expert_policy", "all")
    if policy != "all":
        raise InputError(
            "experts that the input alone decides (second_expert_policy='all')",
            f"second_expert_policy={policy!r}, which draws them at random in every pass",
            "load the model with second_expert_policy='all'",
        )
    limit = _full_attention_limit(_sides_config(config, "encoder"))
    if limit is not None and args.max_prompt_length > limit:
        raise InputError(
            f"prompts of at most {limit} tokens for {type(model).__name__} with block-sparse attention, which is "
            "another one in training than in generation",
            f"max_prompt_length={args.max_prompt_length}",
            "lower max_prompt_length, or load the model with attention_type='original_full'",
        )
    if config.model_type == "prophetnet" and config.pad_token_id != 0:
        raise InputError(
            f"pad_token_id=0 for {type(model).__name__}, whose key-value cache counts positions from it",
            f"pad_token_id={config.pad_token_id}",
            "use a vocabulary whose token 0 is the pad, as the published ones",
        )
    # The host's name for it since transformers 5.23, and the one before.
    asked = any(getattr(args, name, False) for name in ("activation_checkpointing", "gradient_checkpointing"))
    if asked and config.model_type in SCORED_TOKEN_BY_TOKEN:
        raise InputError(
            f"no gradient checkpointing with {type(model).__name__}, which is scored through its key-value cache",
            "gradient checkpointing switched on",
            "switch it off and lower per_device_train_batch_size",
        )


def _full_attention_limit(config: Any) -> int | None:
    """Longest batch for which a block-sparse BigBird changes over to full attention by itself; None for all others."""
    if getattr(config, "attention_type", None) != "block_sparse":
        return None
    return int((5 + 2 * config.num_random_blocks) * config.block_size)


def settle(model: nn.Module) -> None:
    """Makes a built model deterministic, in `train()` mode too, and independent of what else is in its batch.

    Everything is done in the modules, and the config stays as it is, so that the saved model is what it was.

    - Dropout and layerdrop are off.
    - BigBird's encoder attends in full from the start. It would change over with the first batch that is short
      enough, and switch its dropout on again.
    - Routers of experts add no noise and drop no token. A decoder that generates reads one token at a time and never
      fills an expert; over a whole response at once it would. NLLB-MoE counts the tokens of the whole batch, in the
      encoder too, and keeps the last batch's count for training. Switch Transformers' encoder counts each prompt for
      itself: its capacity stays.
    - GELU's tanh form, which transformers writes out in eight passes over the activations, becomes torch's one pass.
    """
    for part in list(model.modules()):
        if hasattr(part, "set_attention_type"):
            cast(Any, part).set_attention_type("original_full")
        for name, child in part.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(part, name, nn.GELU(approximate="tanh"))
    for part in model.modules():
        _turn_off_dropout(part)
        _settle_router(part)
        if isinstance(part, PreTrainedModel) and getattr(part.config, "is_decoder", False):
            for router in part.modules():
                if hasattr(router, "expert_capacity"):
                    router.expert_capacity = cast(Any, _NO_LIMIT)


class _Scaled(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor


def _turn_off_dropout(part: nn.Module) -> None:
    """Sets the dropout and layerdrop probabilities of one module to 0.

    Zeroing `nn.Dropout` alone is not enough: T5's attention and all of BART read a float attribute of the module,
    and ProphetNet's encoder its config.
    """
    if isinstance(part, nn.Dropout):
        part.p = 0.0
    for name, value in list(vars(part).items()):
        if name == "moe_token_dropout":
            # NLLB-MoE scales its experts by 1 - p in generation instead; in training, too, from now on.
            cast(Any, part).token_dropout = _Scaled(1 - cast(float, value))
        elif ("dropout" in name or "layerdrop" in name) and isinstance(value, float):
            setattr(part, name, 0.0)
    if type(part).__name__ == "ProphetNetEncoder":
        cast(Any, part).config = copy.copy(part.config)
        cast(Any, part).config.dropout = 0.0


def _settle_router(part: nn.Module) -> None:
    if hasattr(part, "jitter_noise"):
        part.jitter_noise = cast(Any, 0.0)
    if hasattr(part, "moe_eval_capacity_token_fraction"):
        part.moe_eval_capacity_token_fraction = cast(Any, 0.0)
        part.expert_capacity = cast(Any, _NO_LIMIT)


def decoder_width(model: PreTrainedModel) -> int:
    """Size H of the decoder's hidden states."""
    config = model.config.get_text_config(decoder=True)
    return int(config.hidden_size)


def _encoder_outputs(states: Tensor) -> MoEModelOutput:
    """Encoder states in the form that every model takes; those with experts ask it for router logits."""
    return MoEModelOutput(last_hidden_state=states)


def run_decoder(model: PreTrainedModel, prompts: EncodedPrompts, decoder_input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher-forced forward pass: logits (B, T, V) and the decoder's last hidden states (B, T, H).

    Args:
        prompts: with states the encoder is not run again. (FSMT makes its causal mask only where the prompt's ids are
            passed as well.)
        decoder_input_ids: (B, T), the decoder's start first. No mask goes with them: padding lies behind the EOS,
            and a causal decoder never looks there.
    """
    states = run_encoder(model, prompts.ids, prompts.mask) if prompts.states is None else prompts.states
    if model.config.model_type in SCORED_TOKEN_BY_TOKEN:
        decoder = CachedDecoder(model, states, prompts.mask)
        steps = [decoder.step(token) for token in decoder_input_ids.split(1, dim=1)]
        logits, hidden = zip(*steps, strict=True)
        return torch.cat(logits, dim=1), torch.cat(hidden, dim=1)
    if has_plain_decoder(model) and runs_packed(model, prompts.mask):
        return decode_packed(model, states, prompts.mask, decoder_input_ids)
    outputs = model(
        input_ids=prompts.ids,
        attention_mask=prompts.mask.long(),
        encoder_outputs=_encoder_outputs(states),
        decoder_input_ids=decoder_input_ids,
        use_cache=False,
        output_hidden_states=True,
        return_dict=True,
    )
    return outputs.logits, outputs.decoder_hidden_states[-1]


class CachedDecoder:
    """A model's decoder and its key-value cache: reads responses one token at a time.

    One at a time also where more are known: with a cache, FSMT has no causal mask and ProphetNet takes no more.

    Args:
        encoder_states: (B, S, H).
        prompt_mask: (B, S) bool.
    """

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, prompt_mask: Tensor):
        self._model, self._states, self._mask = model, encoder_states, prompt_mask
        # Without a config it grows layer by layer: sized by T5's it would count the encoder.
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def step(self, token: Tensor) -> tuple[Tensor, Tensor]:
        """Reads one more token (B, 1) of each response; logits (B, 1, V) and hidden states (B, 1, H)."""
        outputs = self._model(
            encoder_outputs=_encoder_outputs(self._states),
            attention_mask=self._mask.long(),
            decoder_input_ids=token,
            past_key_values=self._cache,
            use_cache=True,
            output_hidden_states=True,
            return_dict=True,
        )
        return outputs.logits, outputs.decoder_hidden_states[-1]

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows (B') of the batch alone."""
        self._cache.batch_select_indices(rows)
        self._states, self._mask = self._states[rows], self._mask[rows]
