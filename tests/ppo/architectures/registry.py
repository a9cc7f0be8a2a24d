"""Every text encoder-decoder of transformers, built tiny from its config with the special tokens of its checkpoints.

Weights are wide, so that tokens get clearly different probabilities; experts are few, windows and blocks are shorter
than the longest prompt, and dropout is as published. 40 tokens in every vocabulary.
Leaves out: tokenizers; prompts are token ids.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BigBirdPegasusConfig,
    BigBirdPegasusForConditionalGeneration,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    FSMTConfig,
    FSMTForConditionalGeneration,
    LEDConfig,
    LEDForConditionalGeneration,
    LongT5Config,
    LongT5ForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    MvpConfig,
    MvpForConditionalGeneration,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PegasusXConfig,
    PegasusXForConditionalGeneration,
    PLBartConfig,
    PLBartForConditionalGeneration,
    PreTrainedModel,
    ProphetNetConfig,
    ProphetNetForConditionalGeneration,
    SeamlessM4TConfig,
    SeamlessM4TForTextToText,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    T5Gemma2Config,
    T5Gemma2ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

VOCAB = 40
LANGUAGE = 37  # a language code of the multilingual models

T5_SIZES = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "decoder_start_token_id": 0,
}
BART_SIZES = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "init_std": 0.3,
}
GEMMA_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"],
    "initializer_range": 0.3,
}
BERT_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}

SEAMLESS_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: its `model_type`.
        checkpoint: a published checkpoint that the special tokens are those of.
        build: a new random model.
        note: what is done for this architecture alone.
    """

    name: str
    checkpoint: str
    build: Callable[[], PreTrainedModel]
    note: str = ""


def _untied(model: PreTrainedModel) -> PreTrainedModel:
    """Gives a T5-like model an `lm_head` of its own, as T5 1.1, mT5 and FLAN-T5 have."""
    model.lm_head.weight = torch.nn.Parameter(2 * torch.randn_like(model.lm_head.weight))
    return model


def _forced_bos(model: PreTrainedModel, token: int = LANGUAGE) -> PreTrainedModel:
    model.generation_config.forced_bos_token_id = token
    return model


def _t5():
    return _untied(T5ForConditionalGeneration(T5Config(**T5_SIZES, feed_forward_proj="gated-gelu")))


def _mt5():
    return _untied(MT5ForConditionalGeneration(MT5Config(**T5_SIZES)))


def _umt5():
    return _untied(UMT5ForConditionalGeneration(UMT5Config(**T5_SIZES)))


def _longt5():
    config = LongT5Config(**T5_SIZES, encoder_attention_type="transient-global", local_radius=3, global_block_size=4)
    return LongT5ForConditionalGeneration(config)


def _switch_transformers():
    config = SwitchTransformersConfig(
        **T5_SIZES, num_experts=3, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=2
    )
    return SwitchTransformersForConditionalGeneration(config)


def _t5gemma():
    return T5GemmaForConditionalGeneration(
        T5GemmaConfig(encoder=GEMMA_SIZES, decoder=GEMMA_SIZES, vocab_size=VOCAB, decoder_start_token_id=2)
    )


def _t5gemma2():
    config = T5Gemma2Config(
        encoder={
            "text_config": GEMMA_SIZES,
            "vision_config": {
                "hidden_size": 8,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": 16,
                "patch_size": 8,
            },
            "mm_tokens_per_image": 4,
            "boi_token_index": 33,
            "eoi_token_index": 34,
            "image_token_index": 35,
        },
        decoder=GEMMA_SIZES,
        image_token_index=35,
        eoi_token_index=34,
        decoder_start_token_id=2,
        initializer_range=0.3,
    )
    return T5Gemma2ForConditionalGeneration(config)


def _bart():
    config = BartConfig(**BART_SIZES, decoder_start_token_id=2, forced_eos_token_id=2)
    return _forced_bos(BartForConditionalGeneration(config), 0)


def _mbart():
    # mBART-50: the decoder starts with the EOS, then comes the forced language.
    return _forced_bos(MBartForConditionalGeneration(MBartConfig(**BART_SIZES, decoder_start_token_id=2)))


def _mvp():
    return MvpForConditionalGeneration(MvpConfig(**BART_SIZES, forced_eos_token_id=2))


def _plbart():
    # The decoder starts with the language itself.
    return PLBartForConditionalGeneration(PLBartConfig(**BART_SIZES, decoder_start_token_id=LANGUAGE))


def _pegasus():
    config = PegasusConfig(
        **BART_SIZES, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=1
    )
    return PegasusForConditionalGeneration(config)


def _pegasus_x():
    return PegasusXForConditionalGeneration(PegasusXConfig(**BART_SIZES, num_global_tokens=2, block_size=4))


def _bigbird_pegasus():
    return BigBirdPegasusForConditionalGeneration(
        BigBirdPegasusConfig(**BART_SIZES, attention_dropout=0.1, block_size=8, num_random_blocks=1)
    )


def _led():
    sizes = {name: value for name, value in BART_SIZES.items() if name != "max_position_embeddings"}
    config = LEDConfig(
        **sizes, max_encoder_position_embeddings=64, max_decoder_position_embeddings=32, attention_window=4
    )
    return LEDForConditionalGeneration(config)


def _marian():
    config = MarianConfig(
        **BART_SIZES, pad_token_id=39, eos_token_id=0, decoder_start_token_id=39, forced_eos_token_id=0
    )
    return MarianMTModel(config)


def _m2m_100():
    return _forced_bos(M2M100ForConditionalGeneration(M2M100Config(**BART_SIZES)))


def _nllb_moe():
    config = NllbMoeConfig(
        **BART_SIZES, num_experts=3, expert_capacity=2, encoder_sparse_step=2, decoder_sparse_step=2
    )
    return _forced_bos(NllbMoeForConditionalGeneration(config))


def _blenderbot():
    return BlenderbotForConditionalGeneration(BlenderbotConfig(**BART_SIZES))


def _blenderbot_small():
    return BlenderbotSmallForConditionalGeneration(BlenderbotSmallConfig(**BART_SIZES))


def _prophetnet():
    config = ProphetNetConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=2,
        num_decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        init_std=0.3,
        num_buckets=8,
        relative_max_distance=16,
        pad_token_id=0,
        bos_token_id=36,
        eos_token_id=36,
        decoder_start_token_id=36,
    )
    return ProphetNetForConditionalGeneration(config)


def _fsmt():
    sizes = {name: value for name, value in BART_SIZES.items() if name != "vocab_size"}
    return FSMTForConditionalGeneration(FSMTConfig(**sizes, src_vocab_size=VOCAB, tgt_vocab_size=VOCAB + 3))


def _seamless_m4t():
    return _forced_bos(SeamlessM4TForTextToText(SeamlessM4TConfig(**SEAMLESS_SIZES)))


def _bert2bert():
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**BERT_SIZES),
        BertConfig(**BERT_SIZES),
        pad_token_id=0,
        eos_token_id=36,
        decoder_start_token_id=35,
    )
    return EncoderDecoderModel(config)


ARCHITECTURES = (
    Architecture("t5", "google/flan-t5-small", _t5),
    Architecture("mt5", "google/mt5-small", _mt5),
    Architecture("umt5", "google/umt5-small", _umt5),
    Architecture("longt5", "google/long-t5-tglobal-base", _longt5),
    Architecture(
        "switch_transformers",
        "google/switch-base-8",
        _switch_transformers,
        "no router noise; in the decoder no expert is ever full, as in generation; in the encoder `expert_capacity` "
        "counts each prompt for itself",
    ),
    Architecture("t5gemma", "google/t5gemma-s-s-prefixlm", _t5gemma),
    Architecture("t5gemma2", "google/t5gemma-2-270m-270m", _t5gemma2, "text, no images"),
    Architecture("bart", "facebook/bart-base", _bart, "a forced first token is part of the decoder's start"),
    Architecture(
        "mbart", "facebook/mbart-large-50-many-to-many-mmt", _mbart, "the language code is part of the decoder's start"
    ),
    Architecture("mvp", "RUCAIBox/mvp", _mvp),
    Architecture("plbart", "uclanlp/plbart-python-en_XX", _plbart, "the decoder starts with the language code"),
    Architecture("pegasus", "google/pegasus-xsum", _pegasus),
    Architecture("pegasus_x", "google/pegasus-x-base", _pegasus_x),
    Architecture(
        "bigbird_pegasus",
        "google/bigbird-pegasus-large-arxiv",
        _bigbird_pegasus,
        "full attention from the start, which it takes for such prompts by itself",
    ),
    Architecture(
        "led", "allenai/led-base-16384", _led, "local attention, as `generate` without `global_attention_mask`"
    ),
    Architecture("marian", "Helsinki-NLP/opus-mt-en-de", _marian),
    Architecture(
        "m2m_100", "facebook/nllb-200-distilled-600M", _m2m_100, "the language code is part of the decoder's start"
    ),
    Architecture(
        "nllb-moe",
        "facebook/nllb-moe-54b",
        _nllb_moe,
        "the language code is part of the decoder's start; no expert is ever full, whatever else is in the batch; "
        "transformers itself sends every token to the first two experts alone",
    ),
    Architecture("blenderbot", "facebook/blenderbot-400M-distill", _blenderbot),
    Architecture("blenderbot-small", "facebook/blenderbot_small-90M", _blenderbot_small),
    Architecture(
        "prophetnet",
        "microsoft/prophetnet-large-uncased",
        _prophetnet,
        "scored token by token: over a whole response at once it mixes up relative positions",
    ),
    Architecture("fsmt", "facebook/wmt19-en-de", _fsmt),
    Architecture(
        "seamless_m4t",
        "facebook/hf-seamless-m4t-medium",
        _seamless_m4t,
        "the language code is part of the decoder's start; text to text",
    ),
    Architecture("encoder-decoder", "patrickvonplaten/bert2bert_cnn_daily_mail", _bert2bert),
)
