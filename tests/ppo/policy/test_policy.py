"""The invariant that everything rests on: the sampled policy is the scored policy."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.finite import NotFiniteError
from trl_rewards_plugin.ppo.policy import sampling
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead, teacher_forced
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts, tokenize_prompts
from trl_rewards_plugin.ppo.policy.sampling import sample_responses
from trl_rewards_plugin.ppo.policy.token_rules import token_rules
from trl_rewards_plugin.ppo.policy.token_scores import token_scores
from trl_rewards_plugin.ppo.rollout import Rollout

PROMPTS = ["the cat", "the big black dog eats old fish near the cold river .", "snow", "she reads a long book now"] * 6
families = pytest.mark.parametrize("build", [tiny_t5, tiny_bart], ids=["t5", "bart"])


def load(build, folder):
    model = AutoModelForSeq2SeqLM.from_pretrained(build(folder))
    return model, AutoTokenizer.from_pretrained(folder)


def gap(model, prompts, **rules):
    """Responses, and the largest difference of the sampler's log-probabilities from teacher forcing's."""
    settings = token_rules(model, **rules)
    torch.manual_seed(0)
    responses = sample_responses(model, prompts, settings, 12)
    log_weights, _ = teacher_forced(model, prompts, responses.ids, settings)
    scored = token_scores(log_weights, responses.ids).logprobs
    return responses, ((scored - responses.logprobs).abs() * responses.mask).max().item()


def make_eos_likely(model):
    """A quarter of the vocabulary ends a response, so that random weights end them at many different steps."""
    config = model.generation_config
    config.eos_token_id = [config.eos_token_id, *range(10, 45)]


@families
@pytest.mark.parametrize("rules", [{}, {"temperature": 0.7, "min_new_tokens": 2, "suppressed": (5, 6)}])
def test_sampling_and_teacher_forcing_give_one_log_probability(tmp_path, build, rules):
    model, tokenizer = load(build, tmp_path)
    make_eos_likely(model)
    make_deterministic(model)
    model.train()  # as during the update
    batch, _ = tokenize_prompts(PROMPTS, tokenizer, 64)
    assert len(set(batch.mask.sum(1).tolist())) > 2
    responses, difference = gap(model, batch, **rules)
    lengths = responses.mask.sum(1)
    assert len(set(lengths.tolist())) > 2
    assert responses.ended.any()
    assert difference < 1e-4


@families
@pytest.mark.parametrize("every", [5, 16])
@pytest.mark.parametrize("tokens", [1, 5, 17])
def test_how_often_the_sampler_looks_changes_no_response(tmp_path, build, every, tokens, monkeypatch):
    """A GPU is looked at every 16 tokens: rows that ended run on meanwhile, and leave late."""
    model, tokenizer = load(build, tmp_path)
    make_eos_likely(model)
    make_deterministic(model)
    (batch, _), rules = tokenize_prompts(PROMPTS[:4], tokenizer, 64), token_rules(model, min_new_tokens=1)

    def sample():
        return sample_responses(model, batch, rules, tokens, greedy=True)

    often = sample()
    monkeypatch.setattr(sampling, "_look_every", lambda device: every)
    seldom = sample()
    for name in ("ids", "mask", "ended"):
        assert torch.equal(getattr(often, name), getattr(seldom, name))
    for name in ("logprobs", "entropies", "hidden"):
        torch.testing.assert_close(getattr(often, name), getattr(seldom, name), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("every", [1, 16])
@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("weight", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_stop_the_sampler_however_seldom_it_looks(
    tmp_path, every, greedy, weight, monkeypatch
):
    model, tokenizer = load(tiny_t5, tmp_path)
    make_deterministic(model)
    batch, _ = tokenize_prompts(PROMPTS[:4], tokenizer, 64)
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = weight
    monkeypatch.setattr(sampling, "_look_every", lambda device: every)
    with pytest.raises(NotFiniteError, match="logits") as caught:
        sample_responses(model, batch, token_rules(model), 20, greedy=greedy)
    assert caught.value.row == 0


def update_gap(model, prompts):
    """The gap as the update sees it: after the rollout's rows were picked and cut to their longest prompt."""
    rules = token_rules(model)
    torch.manual_seed(0)
    drawn = sample_responses(model, prompts, rules, 12)
    zeros = torch.zeros_like(drawn.logprobs)
    rollout = Rollout(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        response_ids=drawn.ids,
        response_mask=drawn.mask,
        ended=drawn.ended,
        sampled_logprobs=drawn.logprobs,
        logprobs=zeros,
        ref_logprobs=zeros,
        entropies=zeros,
        values=zeros,
        scores=torch.zeros(len(prompts)),
    )
    lengths = prompts.mask.sum(1)
    short = rollout.select((lengths < lengths.max()).nonzero()[:, 0])
    log_weights, _ = teacher_forced(model, short.prompts, short.response_ids, rules)
    scored = token_scores(log_weights, short.response_ids).logprobs
    return ((scored - short.sampled_logprobs).abs() * short.response_mask).max().item()


@families
def test_the_update_recomputes_it_and_breaks_with_left_padded_prompts(tmp_path, build):
    model, tokenizer = load(build, tmp_path)
    make_eos_likely(model)
    make_deterministic(model)
    right, _ = tokenize_prompts(PROMPTS, tokenizer, 64)
    assert update_gap(model, right) < 1e-4
    left = tokenizer(PROMPTS, padding=True, padding_side="left", return_tensors="pt")
    assert update_gap(model, EncodedPrompts(left["input_ids"], left["attention_mask"].bool())) > 1e-2


@families
def test_the_invariant_breaks_with_dropout_on(tmp_path, build):
    model, tokenizer = load(build, tmp_path)
    model.train()
    batch, _ = tokenize_prompts(PROMPTS, tokenizer, 64)
    assert gap(model, batch)[1] > 1e-2


@families
def test_dropout_is_off_in_the_modules_and_kept_in_the_config(tmp_path, build):
    model, tokenizer = load(build, tmp_path)
    before = model.config.to_dict()
    make_deterministic(model)
    model.train()
    batch, _ = tokenize_prompts(PROMPTS, tokenizer, 64)
    responses = torch.full((len(PROMPTS), 3), 7)
    first, second = (teacher_forced(model, batch, responses, token_rules(model))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert model.config.to_dict() == before


@families
def test_every_prompt_alone_gives_what_it_gives_in_a_batch(tmp_path, build):
    model, tokenizer = load(build, tmp_path)
    model.eval()
    rules = token_rules(model)
    batch, _ = tokenize_prompts(PROMPTS[:4], tokenizer, 64)
    together = sample_responses(model, batch, rules, 8, greedy=True)
    for row, prompt in enumerate(PROMPTS[:4]):
        single, _ = tokenize_prompts([prompt], tokenizer, 64)
        alone = sample_responses(model, single, rules, 8, greedy=True)
        length = int(alone.mask.sum())
        assert alone.ids[0, :length].tolist() == together.ids[row, : int(together.mask[row].sum())].tolist()


@families
def test_greedy_sampling_is_greedy_generate(tmp_path, build):
    model, tokenizer = load(build, tmp_path)
    model.eval()
    batch, _ = tokenize_prompts(PROMPTS[:4], tokenizer, 64)
    ours = sample_responses(model, batch, token_rules(model), 8, greedy=True)
    theirs = model.generate(
        batch.ids,
        attention_mask=batch.mask.long(),
        max_new_tokens=8,
        do_sample=False,
        num_beams=1,
        forced_eos_token_id=None,
        bad_words_ids=[[model.generation_config.pad_token_id]],
    )[:, 1:]
    for row in range(4):
        length = int(ours.mask[row].sum()) - 1  # BART's config forces an EOS at the last step of generate
        assert theirs[row, :length].tolist() == ours.ids[row, :length].tolist()


def test_a_response_of_eos_alone_is_one_real_token(tmp_path):
    model, tokenizer = load(tiny_t5, tmp_path)
    batch, _ = tokenize_prompts(["the cat"], tokenizer, 64)
    rules = token_rules(model, suppressed=tuple(range(2, len(tokenizer))))
    responses = sample_responses(model, batch, rules, 5)
    assert responses.ids.tolist() == [[1]]
    assert responses.mask.tolist() == [[True]]
    assert responses.ended.tolist() == [True]
    assert responses.logprobs.item() == 0.0


@families
def test_values_start_at_zero_and_entropy_is_that_of_the_distribution(tmp_path, build):
    model, tokenizer = load(build, tmp_path)
    batch, _ = tokenize_prompts(PROMPTS[:3], tokenizer, 64)
    rules = token_rules(model)
    responses = sample_responses(model, batch, rules, 6)
    wrapped = PolicyWithValueHead(model)
    output = wrapped(batch, responses.ids, rules)
    assert not output.values.any()
    assert output.values.shape == output.logprobs.shape == output.entropies.shape == responses.ids.shape
    log_weights, hidden = teacher_forced(model, batch, responses.ids, rules)
    exact = torch.distributions.Categorical(logits=log_weights.double()).entropy()
    assert torch.allclose(output.entropies.double(), exact, atol=1e-5)
    assert hidden.shape == (*responses.ids.shape, 32)


def test_a_decoder_deeper_than_its_encoder_can_be_sampled():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_decoder_layers=3, num_heads=2,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    ids = torch.tensor([[5, 6, 1], [7, 1, 0]])
    assert gap(model, EncodedPrompts(ids, ids != 0))[1] < 1e-4
