"""The table of objectives, which responses are marked, and DPO's loss: by hand, and by identities."""

import math
from dataclasses import replace

import pytest
import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.maths.methods import OBJECTIVES
from trl_rewards_plugin.ppo.maths.objectives import mark_best, mark_best_and_worst, preference_loss

RANKED = [name for name, objective in OBJECTIVES.items() if objective.mark is not None]


def config(**settings):
    return Seq2SeqPPOConfig(output_dir="unused", report_to="none", **settings)


def test_the_best_and_the_worst_of_each_prompt_are_marked():
    totals = torch.tensor([0.5, 2.0, -1.0, 7.0, 8.0, 9.0])
    assert mark_best(totals, 3).tolist() == [0, 1, 0, 0, 0, 1]
    assert mark_best_and_worst(totals, 3).tolist() == [0, 1, -1, -1, 0, 1]


def test_of_equal_totals_the_first_is_the_best_and_the_last_the_worst():
    totals = torch.tensor([1.0, 1.0, 1.0, 3.0, 3.0, 0.0, 0.0, 0.0])
    assert mark_best(totals, 4).tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert mark_best_and_worst(totals, 4).tolist() == [0, 0, -1, 1, 1, 0, 0, -1]
    assert mark_best_and_worst(torch.ones(4), 4).tolist() == [1, 0, 0, -1]
    assert mark_best_and_worst(torch.zeros(2), 2).tolist() == [1, -1]


def test_the_hard_loss_by_hand():
    # sigmoid(log 3) = 3/4 and sigmoid(-log 3) = 1/4; a margin of 0 costs log 2; a tie costs nothing.
    margins = torch.tensor([math.log(3), -math.log(3), 0.0, 1.0])
    gaps = torch.tensor([0.1, 5.0, 1.0, 0.0])
    expected = torch.tensor([math.log(4 / 3), math.log(4), math.log(2), 0.0])
    torch.testing.assert_close(preference_loss(margins, gaps, "hard"), expected)


def test_bradley_terry_labels_by_hand():
    # A gap of log 3 is preferred 3 times of 4: 3/4 log 4/3 + 1/4 log 4 at a margin of log 3, log 2 at 0.
    margins, gaps = torch.tensor([math.log(3), 0.0]), torch.tensor([math.log(3)] * 2)
    expected = torch.tensor([0.75 * math.log(4 / 3) + 0.25 * math.log(4), math.log(2)])
    torch.testing.assert_close(preference_loss(margins, gaps, "bradley_terry"), expected)


def test_bradley_terry_labels_pull_every_margin_to_its_gap_and_hard_ones_upwards():
    gaps = torch.tensor([0.0, 0.5, 3.0])
    for labels, sign in (("bradley_terry", 0.0), ("hard", -1.0)):
        margins = gaps.clone().requires_grad_()
        preference_loss(margins, gaps, labels).sum().backward()
        assert torch.allclose(margins.grad[1:].sign() * (margins.grad[1:].abs() > 1e-6), torch.full((2,), sign))
        assert margins.grad[0].abs() < 1e-6  # a tie at a margin of 0 has nothing to teach
    margins = torch.tensor([1.0], requires_grad=True)
    preference_loss(margins, torch.zeros(1), "bradley_terry").sum().backward()
    assert margins.grad.item() > 0  # two responses of one score should be as likely as under the reference


def test_the_loss_with_labels_is_the_mean_of_the_hard_loss_over_annotators():
    margins, gaps = torch.randn(50), torch.rand(50) * 3
    preferred, one = torch.sigmoid(gaps), torch.ones(50)
    mean = preferred * preference_loss(margins, one, "hard") + (1 - preferred) * preference_loss(-margins, one, "hard")
    torch.testing.assert_close(preference_loss(margins, gaps, "bradley_terry"), mean)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_a_choice_and_described(name):
    metadata = Seq2SeqPPOConfig.__dataclass_fields__["objective"].metadata
    assert name in metadata["choices"]
    assert f"{name} ({OBJECTIVES[name].summary})" in metadata["help"]
    assert config(objective=name, num_generations=2).has_critic == (name == "ppo")


@pytest.mark.parametrize("name", RANKED)
def test_a_ranking_objective_has_no_critic_and_marks_as_many_as_it_says(name):
    args = config(objective=name, num_generations=4)
    assert not args.has_critic
    assert args.whitens_advantages is False
    totals = torch.randn(32)
    marks = OBJECTIVES[name].mark(totals, 4).view(8, 4)
    assert ((marks != 0).sum(1) == OBJECTIVES[name].responses_per_prompt).all()


def test_the_weight_of_the_kl_has_a_default_for_each_objective():
    found = {name: config(objective=name, num_generations=2).initial_kl_coef for name in OBJECTIVES}
    assert found == {"ppo": 0.05, "raft": 0.05, "dpo": 0.0}
    copies = {name: replace(config(num_generations=2), objective=name).initial_kl_coef for name in OBJECTIVES}
    assert copies == found
    back = replace(config(objective="dpo", num_generations=2), objective="ppo")
    assert (back.initial_kl_coef, back.whitens_advantages) == (0.05, True)
    assert config(objective="dpo", num_generations=2, kl_coef=0.0, whiten_advantages=False).initial_kl_coef == 0.0


OTHER_VALUES = {
    "advantage_estimator": "rloo", "gamma": 0.9, "lam": 1.0, "whiten_rewards": True, "whiten_advantages": True,
    "cliprange": 0.1, "cliprange_value": 0.1, "vf_coef": 0.0, "critic_learning_rate": 1e-3, "detach_value_head": True,
    "critic_warmup_steps": 1, "beta": 0.5, "dpo_labels": "hard", "kl_coef": 0.05, "use_kl_loss": True,
    "adaptive_kl": True, "kl_target": 1.0, "kl_horizon": 999, "kl_estimator": "k3",
    "cliprange_high": 0.3, "loss_type": "grpo", "scale_rewards": "batch",
    "mask_truncated_completions": True, "multi_objective_aggregation": "normalize_then_sum",
}  # fmt: skip


@pytest.mark.parametrize(("name", "setting"), [(n, s) for n, o in OBJECTIVES.items() for s in o.unused])
def test_a_setting_that_an_objective_does_not_use_is_refused(name, setting):
    other = {"kl_estimator": "k3" if setting == "use_kl_loss" else "k1", setting: OTHER_VALUES[setting]}
    with pytest.raises(InputError, match=f"{setting} left out: objective='{name}' does not use it"):
        config(objective=name, num_generations=2, **other)


@pytest.mark.parametrize("name", RANKED)
def test_a_ranking_objective_needs_responses_to_rank_and_whole_prompts_in_a_mini_batch(name):
    with pytest.raises(InputError, match=r"num_generations at least 2 for .*raft and dpo"):
        config(objective=name)
    config(objective=name, num_generations=4, per_device_train_batch_size=8, num_mini_batches=2)
    with pytest.raises(InputError, match=r"num_mini_batches=4 for 2 prompts"):
        config(objective=name, num_generations=4, per_device_train_batch_size=8, num_mini_batches=4)
