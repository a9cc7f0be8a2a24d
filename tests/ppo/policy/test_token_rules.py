import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from tests.ppo.architectures.registry import ARCHITECTURES, LANGUAGE
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.sampling import sample_responses
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules, token_rules
from trl_rewards_plugin.ppo.policy.token_scores import token_scores


def test_pad_and_suppressed_tokens_are_never_allowed_and_early_eos_is_not():
    rules = TokenRules(start_id=0, eos_ids=(1,), pad_id=0, min_new_tokens=2, suppressed=(3,))
    weights = rules.log_weights(torch.zeros(1, 4, 5))[0]
    allowed = weights.isfinite().tolist()
    assert allowed == [
        [False, False, True, False, True],
        [False, False, True, False, True],
        [False, True, True, False, True],
        [False, True, True, False, True],
    ]


def test_one_step_at_a_time_is_the_same_as_all_at_once():
    rules = TokenRules(start_id=0, eos_ids=(1, 2), pad_id=0, min_new_tokens=3, temperature=0.7)
    logits = torch.randn(2, 6, 8)
    steps = [rules.log_weights(logits[:, step : step + 1], step) for step in range(6)]
    assert torch.equal(torch.cat(steps, dim=1), rules.log_weights(logits))


def test_temperature_divides_the_logits():
    rules = TokenRules(start_id=9, eos_ids=(1,), pad_id=0, temperature=0.5)
    assert rules.log_weights(torch.full((1, 1, 3), 2.0))[0, 0, 1].item() == 4.0


def test_an_eos_may_be_suppressed_but_only_ids_of_the_model(tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path))
    assert token_rules(model, suppressed=(1,)).never == (0, 1)
    with pytest.raises(InputError, match=r"\[9999\]"):
        token_rules(model, suppressed=(5, 9999))


def test_a_pad_that_is_also_the_eos_stays_allowed():
    rules = TokenRules(start_id=0, eos_ids=(1,), pad_id=1, min_new_tokens=1)
    assert rules.never == ()
    weights = rules.log_weights(torch.zeros(1, 2, 3))
    assert weights.tolist() == [[[0.0, -torch.inf, 0.0], [0.0, 0.0, 0.0]]]


def test_a_forced_first_token_is_read_before_the_response_and_a_forced_eos_is_not_taken_over(tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_bart(tmp_path)).eval()
    assert model.generation_config.forced_eos_token_id == 2
    assert token_rules(model).prefix == (2,)
    model.generation_config.forced_bos_token_id = 7
    rules = token_rules(model, suppressed=(2,))
    assert rules.prefix == (2, 7)
    prompt = torch.tensor([[9, 10, 2]])
    responses = sample_responses(model, EncodedPrompts(prompt, prompt > 0), rules, 4)
    assert not responses.ended.any()  # cut, and no EOS was put at its end
    with torch.no_grad():
        plain = model(input_ids=prompt, decoder_input_ids=torch.tensor([[2, 7]])).logits[0, -1]
    plain[[1, 2]] = -torch.inf
    first = plain.log_softmax(-1)[responses.ids[0, 0]]
    assert responses.logprobs[0, 0].item() == pytest.approx(first.item(), abs=1e-5)


@pytest.mark.parametrize("name", ["mbart", "m2m_100", "nllb-moe", "seamless_m4t"])
def test_a_multilingual_model_needs_its_target_language(name):
    model = next(architecture for architecture in ARCHITECTURES if architecture.name == name).build()
    assert token_rules(model).forced_ids == (LANGUAGE,)
    model.generation_config.forced_bos_token_id = None
    with pytest.raises(InputError, match=r"target language of (?s:.*)forced_bos_token_id=None"):
        token_rules(model)


def test_the_first_mbart_starts_its_decoder_with_the_language():
    model = next(architecture for architecture in ARCHITECTURES if architecture.name == "mbart").build()
    model.generation_config.forced_bos_token_id = None
    model.generation_config.decoder_start_token_id = LANGUAGE
    assert token_rules(model).prefix == (LANGUAGE,)


@pytest.mark.parametrize(("build", "start", "eos", "pad"), [(tiny_t5, 0, 1, 0), (tiny_bart, 2, 2, 1)])
def test_both_families_are_read_from_their_configs(tmp_path, build, start, eos, pad):
    rules = token_rules(AutoModelForSeq2SeqLM.from_pretrained(build(tmp_path)))
    assert (rules.start_id, rules.eos_ids, rules.pad_id) == (start, (eos,), pad)


def test_a_model_without_a_pad_token_is_refused(tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path))
    model.generation_config.pad_token_id = model.config.pad_token_id = None
    with pytest.raises(InputError, match="pad_token_id=None"):
        token_rules(model)


def test_a_token_that_is_not_allowed_gets_no_gradient_and_the_others_theirs():
    logits = torch.tensor([[[0.5, 1.0, -1.0, 2.0]]], requires_grad=True)
    rules = TokenRules(start_id=0, eos_ids=(1,), pad_id=0)
    token_scores(rules.log_weights(logits * 1.0), torch.tensor([[2]])).logprobs.sum().backward()
    allowed = torch.tensor([1.0, -1.0, 2.0]).softmax(0)
    expected = torch.tensor([0.0, -allowed[0], 1 - allowed[1], -allowed[2]])
    torch.testing.assert_close(logits.grad[0, 0], expected)
