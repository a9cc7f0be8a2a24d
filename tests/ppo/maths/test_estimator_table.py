"""The table of estimators: what the config offers and refuses is what stands there."""

from dataclasses import replace

import pytest
import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.maths.advantages import estimate_advantages
from trl_rewards_plugin.ppo.maths.methods import ESTIMATORS, names_of

MASK = torch.tensor([[True, True], [True, False]])
REWARDS = torch.tensor([[0.5, 1.0], [-1.0, 0.0]])


def config(**settings):
    return Seq2SeqPPOConfig(output_dir="unused", report_to="none", **settings)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_is_a_choice_is_described_and_is_0_on_padding(name):
    metadata = Seq2SeqPPOConfig.__dataclass_fields__["advantage_estimator"].metadata
    assert name in metadata["choices"]
    assert f"{name} ({ESTIMATORS[name].summary})" in metadata["help"]
    values = torch.full((2, 2), 0.25)
    advantages, returns = estimate_advantages(name, REWARDS, values, MASK, gamma=1.0, lam=1.0, num_generations=2)
    assert advantages[~MASK].tolist() == returns[~MASK].tolist() == [0.0]
    assert (advantages is returns) != ESTIMATORS[name].needs_critic


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_config_follows_what_the_table_says(name):
    estimator = ESTIMATORS[name]
    args = config(advantage_estimator=name, num_generations=2)
    assert args.has_critic == estimator.needs_critic
    assert args.whitens_advantages == estimator.whitens_by_default
    if estimator.compares_responses:
        with pytest.raises(InputError, match=f"at least 2 for .*{name}"):
            config(advantage_estimator=name)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_copy_with_another_estimator_has_that_ones_default(name):
    args = config(num_generations=2)
    assert replace(args, advantage_estimator=name).whitens_advantages == ESTIMATORS[name].whitens_by_default
    chosen = replace(args, whiten_advantages=not ESTIMATORS[name].whitens_by_default)
    assert replace(chosen, advantage_estimator=name).whitens_advantages == chosen.whiten_advantages


def test_names_are_listed_for_people():
    assert names_of(lambda estimator: estimator.needs_critic) == "gae"
    assert names_of(lambda estimator: estimator.compares_responses) == "rloo and grpo"
    assert names_of(lambda estimator: True) == "gae, rloo, grpo and reinforce"
