import dataclasses

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo import decoding
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import decode_prompts, rules_for
from trl_rewards_plugin.ppo.policy.policy import score_responses, teacher_forced
from trl_rewards_plugin.ppo.policy.prompts import prompt_text, tokenize_prompts
from trl_rewards_plugin.ppo.policy.token_scores import token_scores

PROMPTS = ["the cat", "a big dog eats old fish near the river ."]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tiny_t5(tmp_path_factory.mktemp("t5"))
    args = Seq2SeqPPOConfig(output_dir="unused", response_length=6, per_device_eval_batch_size=2, report_to="none")
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder), args


def test_the_same_seed_gives_the_same_texts_and_no_other_randomness_moves(loaded):
    state = torch.get_rng_state()
    first, second = (decode_prompts(*loaded[:2], PROMPTS, loaded[2], seed=4) for _ in range(2))
    other = decode_prompts(*loaded[:2], PROMPTS, loaded[2], seed=5)
    assert first.texts == second.texts != other.texts
    assert torch.equal(torch.get_rng_state(), state)


def test_the_samples_of_one_prompt_lie_side_by_side(loaded):
    decoded = decode_prompts(*loaded[:2], PROMPTS, loaded[2], num_samples=3, greedy=True)
    assert len(decoded.texts) == 6
    assert len(set(decoded.texts[:3])) == len(set(decoded.texts[3:])) == 1
    assert decoded.lengths.shape == (6,)
    assert decoded.log_ratio is None


def test_the_log_ratio_is_0_against_itself_and_that_of_the_texts_against_another(loaded, tmp_path):
    model, tokenizer, args = loaded

    def logprobs_under(scorer):
        rules = rules_for(scorer, args)
        return lambda prompts, responses: (
            token_scores(teacher_forced(scorer, prompts, responses, rules)[0], responses).logprobs
        )

    same = decode_prompts(model, tokenizer, PROMPTS, args, reference=logprobs_under(model))
    torch.testing.assert_close(same.log_ratio, torch.zeros(2), atol=1e-5, rtol=0)
    other = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path, seed=1)).eval()
    many = decode_prompts(model, tokenizer, PROMPTS, args, num_samples=20, reference=logprobs_under(other))
    assert many.log_ratio.mean() > 0  # a KL divergence, estimated from 40 responses


def count_calls(monkeypatch, module):
    calls = []
    forward = module.forward
    monkeypatch.setattr(module, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    return calls


def test_each_prompt_is_encoded_once_for_all_its_samples_and_the_policy_is_not_run_again(loaded, monkeypatch):
    model, tokenizer, args = loaded
    args = dataclasses.replace(args, per_device_eval_batch_size=5)  # cuts through the samples of the second prompt
    seen = []
    encode = decoding.encode_prompts
    monkeypatch.setattr(decoding, "encode_prompts", lambda *parts: seen.append(len(parts[1])) or encode(*parts))
    passes = count_calls(monkeypatch, model.encoder)
    decoded = decode_prompts(model, tokenizer, PROMPTS, args, num_samples=4, reference=lambda *parts: 0.0)
    assert seen == [2, 1]
    assert len(passes) == 2
    assert len(decoded.texts) == len(decoded.log_ratio) == 8
    alone = decode_prompts(model, tokenizer, [PROMPTS[0]] * 4 + [PROMPTS[1]] * 4, args)
    assert decoded.texts == alone.texts


@pytest.mark.parametrize("family", [tiny_t5, tiny_bart])
def test_in_bfloat16_the_kl_to_itself_is_0_too(loaded, tmp_path, family):
    """Sampler and scorer differ there, so both sides of the ratio are scored alike."""
    model = AutoModelForSeq2SeqLM.from_pretrained(family(tmp_path), dtype=torch.bfloat16).eval()
    rules = rules_for(model, loaded[2], loaded[1])

    def itself(prompts, responses):
        return score_responses(model, prompts, responses, rules, sliced=True)[0].logprobs

    decoded = decode_prompts(model, loaded[1], PROMPTS, loaded[2], num_samples=8, reference=itself)
    assert torch.equal(decoded.log_ratio, torch.zeros(16))
    full = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()

    def fully(prompts, responses):
        return score_responses(full, prompts, responses, rules, sliced=True)[0].logprobs

    with torch.autocast("cpu", dtype=torch.bfloat16):
        decoded = decode_prompts(full, loaded[1], PROMPTS, loaded[2], num_samples=8, reference=fully)
    assert torch.equal(decoded.log_ratio, torch.zeros(16))


def test_a_model_that_fails_is_left_in_the_mode_it_was_in(loaded):
    model, tokenizer, args = loaded
    model.train()
    with pytest.raises(ValueError, match="no reference"):
        decode_prompts(model, tokenizer, PROMPTS, args, reference=fails)
    assert all(module.training for module in model.modules())
    model.eval()


def fails(*parts):
    raise ValueError("no reference")


def test_generate_decodes_where_settings_are_given(loaded):
    model, tokenizer, args = loaded
    decoded = decode_prompts(model, tokenizer, PROMPTS, args, generation_kwargs={"num_beams": 3, "max_new_tokens": 2})
    assert int(decoded.lengths.max()) <= 2


def test_what_generate_writes_is_counted_without_start_and_forced_tokens_and_with_its_eos(tmp_path, loaded):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_bart(tmp_path)).eval()
    tokenizer, args = AutoTokenizer.from_pretrained(tmp_path), loaded[2]
    model.generation_config.forced_bos_token_id = tokenizer.convert_tokens_to_ids("cat")
    greedy = {"num_beams": 1, "do_sample": False, "bad_words_ids": [[tokenizer.pad_token_id]]}
    given = {**greedy, "max_new_tokens": 6, "forced_eos_token_id": None}  # the forced token is one of the 6
    plain = decode_prompts(model, tokenizer, PROMPTS, args, generation_kwargs=given)
    five = dataclasses.replace(args, response_length=5)
    ours = decode_prompts(model, tokenizer, PROMPTS, five, greedy=True)
    assert plain.texts == ours.texts
    assert torch.equal(plain.lengths, ours.lengths)
    # Where the caller takes the forced token back, nothing of the response is lost.
    free = decode_prompts(model, tokenizer, PROMPTS, args, generation_kwargs={**given, "forced_bos_token_id": None})
    assert int(free.lengths.max()) == 6
    # A pad that is also the EOS: the EOS that generate forces at the end counts, what follows it does not.
    model.generation_config.pad_token_id = model.generation_config.eos_token_id
    ended = decode_prompts(
        model, tokenizer, PROMPTS, args, generation_kwargs={"num_beams": 1, "do_sample": False, "max_new_tokens": 3}
    )
    assert int(ended.lengths.max()) == 2


def test_prompts_are_padded_on_the_right_and_cut_before_their_eos(loaded):
    tokenizer = loaded[1]
    tokenizer.padding_side = "left"
    batch, truncated = tokenize_prompts(PROMPTS, tokenizer, 5)
    assert truncated == 1
    assert batch.mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert batch.ids[1, -1] == batch.ids[0, 2] == tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"


def test_a_conversation_goes_through_the_chat_template(loaded):
    loaded[1].chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    assert prompt_text([{"role": "user", "content": "hi"}], loaded[1]) == "user: hi"


@pytest.mark.parametrize("generation_kwargs", [None, {"num_beams": 2}])
def test_progress_counts_every_answer_batch_by_batch(loaded, generation_kwargs):
    model, tokenizer, args = loaded
    counts = []
    given = {"generation_kwargs": generation_kwargs, "progress": counts.append}
    decode_prompts(model, tokenizer, PROMPTS, args, num_samples=3, **given)
    size = args.per_device_eval_batch_size
    assert sum(counts) == 3 * len(PROMPTS)
    assert all(count == size for count in counts[:-1])
