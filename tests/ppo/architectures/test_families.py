"""Every text encoder-decoder of transformers: the sampled policy is the scored one, learns, and is what is saved."""

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BigBirdConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    LongT5Config,
    LongT5ForConditionalGeneration,
    MvpConfig,
    MvpForConditionalGeneration,
    RobertaConfig,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2ForTextToText,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from tests.ppo.architectures import architecture_table
from tests.ppo.architectures.registry import (
    ARCHITECTURES,
    BART_SIZES,
    BERT_SIZES,
    LANGUAGE,
    SEAMLESS_SIZES,
    T5_SIZES,
    VOCAB,
)
from tests.ppo.chi_square import p_value
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.architectures.families import FAMILIES, family_of, make_deterministic
from trl_rewards_plugin.ppo.architectures.forward_passes import run_decoder
from trl_rewards_plugin.ppo.architectures.limits import check_architecture, positions
from trl_rewards_plugin.ppo.decoding import rules_for
from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model
from trl_rewards_plugin.ppo.policy.policy import decoder_width, teacher_forced
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.sampling import sample_responses
from trl_rewards_plugin.ppo.policy.token_rules import token_rules
from trl_rewards_plugin.ppo.policy.token_scores import token_scores

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
LENGTHS = torch.tensor([19, 1, 5, 12, 17, 3])


def prompt_batch(pad_id):
    mask = torch.arange(19) < LENGTHS[:, None]
    return torch.where(mask, torch.randint(4, 33, mask.shape), pad_id), mask


def gap(model, *, train=True, length=8):
    """Largest difference of the sampler's log-probabilities from teacher forcing's."""
    rules = token_rules(model)
    ids, mask = prompt_batch(rules.pad_id)
    model.eval()
    drawn = sample_responses(model, EncodedPrompts(ids, mask), rules, length)
    model.train(train)
    with torch.no_grad():
        weights, hidden = teacher_forced(model, EncodedPrompts(ids, mask), drawn.ids, rules)
    assert hidden.shape == (*drawn.ids.shape, decoder_width(model))
    return ((token_scores(weights, drawn.ids).logprobs - drawn.logprobs).abs() * drawn.mask).max().item()


@pytest.mark.parametrize("name", BY_NAME)
def test_an_architecture_is_sampled_scored_trained_saved_and_reloaded(name):
    found = architecture_table.examine(BY_NAME[name])
    assert len(set(found.lengths)) > 1
    assert found.sensitivity > 1e-2
    assert found.gap < architecture_table.TOLERANCE
    assert found.reference_gap < architecture_table.TOLERANCE
    assert found.moved > 1e-3
    assert found.reload_gap < architecture_table.TOLERANCE
    assert found.generates
    assert found.config_changes == {}
    assert found.untied[0] == found.untied[1]


def test_flan_t5_and_mt5_are_tested_with_an_output_matrix_of_their_own():
    assert all(architecture_table.examine(BY_NAME[name]).untied == (True, True) for name in ("t5", "mt5", "umt5"))


def test_the_table_says_what_was_found():
    assert architecture_table.table() == architecture_table.written(), (
        "run python -m tests.ppo.architectures.architecture_table"
    )
    assert len(ARCHITECTURES) == 24


# ---- First tokens, in distribution ----


def exact_first_token(model, prompt, rules):
    """Probabilities (V,) of the first token, by a plain forward pass over one prompt without padding."""
    with torch.no_grad():
        logits = model(input_ids=prompt[None], decoder_input_ids=torch.tensor([rules.prefix]), use_cache=False).logits
    allowed = logits[0, -1].double() / rules.temperature
    allowed[rules.never] = -torch.inf
    return allowed.softmax(-1)


@pytest.mark.parametrize("name", ["t5", "bart", "m2m_100", "fsmt", "nllb-moe"])
def test_first_tokens_of_a_padded_batch_follow_the_exact_softmax(name):
    model = BY_NAME[name].build()
    make_deterministic(model)
    model.eval()
    rules = token_rules(model, temperature=1.5)
    ids, mask = prompt_batch(rules.pad_id)
    draws = 1500
    drawn = sample_responses(model, EncodedPrompts(ids.repeat(draws, 1), mask.repeat(draws, 1)), rules, 1).ids.view(
        draws, -1
    )
    exact = [exact_first_token(model, row[keep], rules) for row, keep in zip(ids, mask, strict=True)]
    own, others = [], []
    for number, probabilities in enumerate(exact):
        counts = torch.bincount(drawn[:, number], minlength=len(probabilities))
        assert not counts[probabilities == 0].any()
        own.append(p_value(counts, draws * probabilities))
        others.append(p_value(counts, draws * exact[number - 1]))
    assert min(own) > 1e-3  # six true hypotheses: by chance in 0.6 % of all seeds, and the seed is fixed
    assert sorted(others)[2] < 1e-6  # of two prompts in six the answers may be alike


# ---- What is done for single families ----


def _pair(encoder, decoder):
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder, decoder, pad_token_id=1, eos_token_id=36, decoder_start_token_id=35
    )
    return EncoderDecoderModel(config)


GPT2 = GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
VARIANTS = {
    "mvp with prompts": lambda: MvpForConditionalGeneration(
        MvpConfig(**BART_SIZES, use_prompt=True, prompt_length=3, prompt_mid_dim=8)
    ),
    "longt5 with local attention": lambda: LongT5ForConditionalGeneration(LongT5Config(**T5_SIZES, local_radius=3)),
    "seamless_m4t_v2": lambda: SeamlessM4Tv2ForTextToText(SeamlessM4Tv2Config(**SEAMLESS_SIZES)),
    "roberta2roberta": lambda: _pair(
        RobertaConfig(**BERT_SIZES, pad_token_id=1), RobertaConfig(**BERT_SIZES, pad_token_id=1)
    ),
    "bigbird2bert": lambda: _pair(
        BigBirdConfig(**BERT_SIZES, block_size=8, num_random_blocks=1), BertConfig(**BERT_SIZES)
    ),
    "bert2gpt2": lambda: _pair(BertConfig(**BERT_SIZES), GPT2),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_an_architecture_are_scored_as_they_are_sampled(name):
    model = VARIANTS[name]()
    if name == "seamless_m4t_v2":
        model.generation_config.forced_bos_token_id = LANGUAGE
    make_deterministic(model)
    assert gap(model) < 1e-4


@pytest.mark.parametrize("name", ["switch_transformers", "nllb-moe", "prophetnet", "m2m_100", "t5"])
def test_a_model_that_is_not_made_deterministic_is_scored_otherwise_than_sampled(name):
    assert gap(BY_NAME[name].build()) > 1e-2


@pytest.mark.parametrize("name", BY_NAME)
def test_make_deterministic_changes_neither_config_nor_generation(name):
    model = BY_NAME[name].build().eval()
    before = model.config.to_dict()
    rules = token_rules(model)
    ids, mask = prompt_batch(rules.pad_id)
    plain = sample_responses(model, EncodedPrompts(ids, mask), rules, 6, greedy=True)
    make_deterministic(model)
    deterministic = sample_responses(model, EncodedPrompts(ids, mask), rules, 6, greedy=True)
    assert model.config.to_dict() == before
    assert torch.allclose(plain.logprobs, deterministic.logprobs, atol=1e-5)


def test_other_prompts_of_a_batch_fill_no_expert():
    model = BY_NAME["nllb-moe"].build()
    make_deterministic(model)
    model.train()
    rules = token_rules(model)
    ids, mask = prompt_batch(rules.pad_id)
    drawn = sample_responses(model, EncodedPrompts(ids, mask), rules, 8)
    with torch.no_grad():
        together, _ = teacher_forced(model, EncodedPrompts(ids, mask), drawn.ids, rules)
        alone, _ = teacher_forced(model, EncodedPrompts(ids[:1], mask[:1]), drawn.ids[:1], rules)
    assert torch.allclose(together[:1], alone, atol=1e-4)


def test_transformers_uses_the_first_two_experts_of_nllb_moe_alone():
    model = BY_NAME["nllb-moe"].build().eval()
    used = set()
    for name, part in model.named_modules():
        if name.split(".")[-1].startswith("expert_"):
            part.register_forward_hook(lambda *_, name=name: used.add(name[-1]))
    ids, mask = prompt_batch(1)
    run_decoder(model, EncodedPrompts(ids, mask), torch.randint(4, 33, (6, 9)))
    assert used == {"0", "1"}  # and it has three; if this fails the note in the table is out of date


def test_a_model_type_has_one_record():
    types = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(types) == len(set(types))


def test_a_decoder_that_counts_in_python_has_no_static_decoding_step():
    configs = {name: architecture.build().config for name, architecture in BY_NAME.items()}
    static = {name for name, config in configs.items() if family_of(config).static_decoding(config)}
    assert {"t5", "bart", "marian"} <= static
    assert not static & {
        "led",
        "fsmt",
        "prophetnet",
        "switch_transformers",
        "nllb-moe",
        "t5gemma",
        "t5gemma2",
        "m2m_100",
    }
    config = configs["t5gemma"]
    config.decoder.layer_types = ["full_attention"] * 2
    assert family_of(config).static_decoding(config)


# ---- How long, and what is refused ----


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [("t5", None, None), ("bart", 64, 64), ("led", 64, 32), ("prophetnet", 63, 62), ("encoder-decoder", 64, 64)],
)
def test_positions_are_those_of_each_side(name, encoder, decoder):
    assert positions(BY_NAME[name].build()) == (encoder, decoder)


def test_positions_behind_the_pad_are_not_counted():
    assert positions(VARIANTS["roberta2roberta"]()) == (62, 62)
    assert positions(VARIANTS["bert2gpt2"]()) == (64, 64)


@pytest.mark.parametrize("name", [name for name in BY_NAME if positions(BY_NAME[name].build()).decoder == 64])
def test_the_longest_response_that_is_accepted_can_be_scored(name):
    model = BY_NAME[name].build()
    rules = token_rules(model)
    ids = torch.randint(4, 33, (1, 64))
    longest = 64 - len(rules.forced_ids)
    args = architecture_table.settings("unused", response_length=longest)
    check_architecture(model, args, rules)
    teacher_forced(model, EncodedPrompts(ids, ids > 0), torch.randint(4, 33, (1, longest)), rules)
    args = architecture_table.settings("unused", response_length=longest + 1)
    with pytest.raises(InputError, match=f"at most {longest}"):
        check_architecture(model, args, rules)


def test_an_encoder_decoder_for_speech_is_refused_by_folder_and_by_model(tmp_path):
    config = WhisperConfig(
        vocab_size=VOCAB, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=3, max_source_positions=8,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    for model in (tmp_path, WhisperForConditionalGeneration(config)):
        with pytest.raises(InputError, match="reads text and writes text"):
            check_seq2seq_model(model)


def refusal(name, change=lambda model: None, **settings):
    model = VARIANTS[name]() if name in VARIANTS else BY_NAME[name].build()
    change(model)
    args = architecture_table.settings("unused", **settings)
    with pytest.raises(InputError) as caught:
        check_architecture(model, args, rules_for(model, args))
    return caught.value


def test_experts_drawn_at_random_are_refused():
    error = refusal("nllb-moe", lambda model: setattr(model.config, "second_expert_policy", "sampling"))
    assert "'sampling'" in error.found
    assert "second_expert_policy='all'" in error.next_step


def test_block_sparse_attention_is_refused_for_prompts_that_reach_it():
    model = BY_NAME["bigbird_pegasus"].build()
    rules = token_rules(model)
    check_architecture(model, architecture_table.settings("unused", max_prompt_length=56), rules)
    for name in ("bigbird_pegasus", "bigbird2bert"):
        assert "at most 56 tokens" in refusal(name, max_prompt_length=57).expected
    model.config.attention_type = "original_full"
    check_architecture(model, architecture_table.settings("unused", max_prompt_length=57), rules)


def test_a_prophetnet_whose_pad_is_not_0_is_refused():
    assert refusal("prophetnet", lambda model: setattr(model.config, "pad_token_id", 5)).found == "pad_token_id=5"


def test_gradient_checkpointing_is_refused_where_responses_are_scored_token_by_token():
    settings = {architecture_table.CHECKPOINTING: True}
    assert "lower per_device_train_batch_size" in refusal("prophetnet", **settings).next_step


@pytest.mark.parametrize("build", [tiny_t5, tiny_bart])
def test_common_models_are_refused_nothing(tmp_path, build):
    model = AutoModelForSeq2SeqLM.from_pretrained(build(tmp_path))
    args = architecture_table.settings("unused", **{architecture_table.CHECKPOINTING: True})
    check_architecture(model, args, token_rules(model))
