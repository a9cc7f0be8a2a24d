import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.token_rules import TokenRules, token_rules


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
    assert token_rules(model, suppressed=(1,)).never == [0, 1]
    with pytest.raises(InputError, match=r"\[9999\]"):
        token_rules(model, suppressed=(5, 9999))


def test_a_pad_that_is_also_the_eos_stays_allowed():
    assert TokenRules(start_id=0, eos_ids=(1,), pad_id=1).never == []


@pytest.mark.parametrize(("build", "start", "eos", "pad"), [(tiny_t5, 0, 1, 0), (tiny_bart, 2, 2, 1)])
def test_both_families_are_read_from_their_configs(tmp_path, build, start, eos, pad):
    rules = token_rules(AutoModelForSeq2SeqLM.from_pretrained(build(tmp_path)))
    assert (rules.start_id, rules.eos_ids, rules.pad_id) == (start, (eos,), pad)


def test_a_model_without_a_pad_token_is_refused(tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path))
    model.generation_config.pad_token_id = model.config.pad_token_id = None
    with pytest.raises(InputError, match="pad_token_id=None"):
        token_rules(model)
