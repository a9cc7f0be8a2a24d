"""Numbers that are not finite stop the run before the optimizer step, and the message says where."""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file

from tests.ppo.test_trainer import make_trainer, vowels, weights
from tests.ppo.test_update import rollout
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo import finite
from trl_rewards_plugin.ppo.finite import NotFiniteError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


def with_value(name, row, value):
    """The rollout of two responses with another number on the first token of one of them."""
    values = getattr(rollout(), name).clone()
    values[row if values.dim() == 1 else (row, 0)] = value
    return dataclasses.replace(rollout(), **{name: values})


@pytest.mark.parametrize("name", ["scores", "logprobs", "ref_logprobs", "entropies", "values"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_rollout_with_such_a_number_names_field_cause_and_row(name, value):
    finite.check_rollout(rollout())
    with pytest.raises(NotFiniteError, match=f"{name} of the rollout.* Likely cause: ") as caught:
        finite.check_rollout(with_value(name, 1, value))
    assert caught.value.row == 1


def test_behind_the_last_token_anything_may_stand():
    padded = dataclasses.replace(rollout(), ref_logprobs=torch.tensor([[-1.5, -2.0], [-1.0, -math.inf]]))
    finite.check_rollout(padded)


def test_logits_are_told_by_the_response_that_they_belong_to():
    rows = torch.tensor([0, 4, 7])
    finite.check_sampling(torch.tensor([False, False, False]), rows)
    with pytest.raises(NotFiniteError, match="logits") as caught:
        finite.check_sampling(torch.tensor([False, True, True]), rows)
    assert caught.value.row == 4


@pytest.mark.parametrize(("value", "said"), [(math.nan, "of weight and 1 more"), (1e30, "its norm overflows")])
def test_gradients_are_told_by_name(value, said):
    layer = torch.nn.Linear(2, 1)
    assert finite.gradient_norm(layer).item() == 0.0  # none yet
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    norm = finite.gradient_norm(layer).item()
    assert norm == pytest.approx(math.sqrt(3))
    finite.check_gradients(layer, norm)
    for parameter in layer.parameters():
        parameter.grad.fill_(value)
    with pytest.raises(NotFiniteError, match=said):
        finite.check_gradients(layer, finite.gradient_norm(layer).item())


def test_a_gradient_that_only_another_process_has_stops_this_one_too():
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad = torch.ones_like(layer.weight)
    norm = finite.gradient_norm(layer, reduce=lambda norm: norm + math.inf).item()
    with pytest.raises(NotFiniteError):
        finite.check_gradients(layer, norm)


def test_the_most_extreme_response_is_the_suspect():
    assert finite.most_extreme_row(rollout(), torch.tensor([[1.0, 2.0], [-3.0, 99.0]])) == 1
    assert finite.most_extreme_row(rollout(), torch.tensor([[1.0, math.nan], [-3.0, 0.0]])) == 0


def test_the_place_is_added_once_and_other_errors_pass():
    with (
        pytest.raises(NotFiniteError, match=r"^step 3: loss\. Seen at the prompt 'row 1'") as caught,
        finite.locate_non_finite(3, lambda row: f"'row {row}'", lambda: 1),
    ):
        raise FloatingPointError("loss")
    assert caught.value.row == 1
    with pytest.raises(KeyError), finite.locate_non_finite(3, str):
        raise KeyError("x")
    with pytest.raises(NotFiniteError, match=r"Seen at the prompt 0"), finite.locate_non_finite(3, str):
        raise FloatingPointError("no row")


def stopped(trainer, match):
    """Trains until it stops; returns the error's text."""
    with pytest.raises(FloatingPointError, match=match) as caught:
        trainer.train()
    return str(caught.value)


def test_a_loss_that_overflows_leaves_the_weights_as_they_were(model, tmp_path):
    trainer = make_trainer(model, tmp_path, lambda completions, **kw: [1e38] * len(completions), num_mini_batches=1)
    start = weights(trainer)
    text = stopped(trainer, r"^step 1: the update is not finite.* Seen at the prompt '\w")
    assert "</s>" not in text
    assert all(torch.equal(value, start[name]) for name, value in weights(trainer).items())


def test_a_gradient_that_is_not_finite_stops_before_the_step_with_or_without_clipping(model, tmp_path):
    for clipping in (1.0, 0.0):
        trainer = make_trainer(model, tmp_path, max_grad_norm=clipping, num_ppo_epochs=1, num_mini_batches=1)
        start = weights(trainer)
        trainer.policy_model.lm_head.weight.register_hook(lambda gradient: gradient * math.nan)
        stopped(trainer, r"^step 1: the gradient of policy\.lm_head\.weight")
        assert all(torch.equal(value, start[name]) for name, value in weights(trainer).items())


def test_after_a_stop_the_last_checkpoint_is_good_and_the_run_goes_on_from_it(model, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "total_episodes": 20}

    def breaks(completions, trainer_state, **kwargs):
        return [1e38] * len(completions) if trainer_state.global_step == 3 else vowels(completions)

    text = stopped(make_trainer(model, tmp_path, breaks, **settings), "^step 4: ")
    assert "the last checkpoint is good" in text
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [f"checkpoint-{step}" for step in (1, 2, 3)]
    saved = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in saved.values())
    resumed = make_trainer(model, tmp_path, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 5
    straight = make_trainer(model, tmp_path / "straight", **settings)
    straight.train()
    assert all(torch.equal(value, weights(straight)[name]) for name, value in weights(resumed).items())


def test_weights_that_are_not_finite_are_told_before_the_first_token(model, tmp_path):
    trainer = make_trainer(model, tmp_path)
    trainer.policy_model.get_encoder().block[0].layer[0].SelfAttention.q.weight.data[0, 0] = math.nan
    stopped(trainer, r"^step 1: the policy's logits are not finite.* Seen at the prompt '")
