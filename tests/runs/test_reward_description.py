from types import SimpleNamespace

import pytest

from trl_rewards_plugin.rewards.combining.combination import AGGREGATIONS
from trl_rewards_plugin.runs.reward_description import describe_reward, reward_formula, reward_record

PARTS = [{"name": "a", "weight": 1.0}, {"name": "b", "weight": 0.5}, {"name": "c", "weight": 0.0}]
FORMULAS = {
    "weighted_sum": "1 x a + 0.5 x b + 0 x c",
    "weighted_mean": "(1 x a + 0.5 x b + 0 x c) / 1.5",
    "minimum": "the minimum of 1 x a, 0.5 x b",
    "geometric_mean": "(a^1 x b^0.5 x c^0)^(1 / 1.5)",
}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_aggregation_has_its_formula(aggregation):
    assert reward_formula(PARTS, aggregation) == FORMULAS[aggregation]


def test_another_aggregation_has_none():
    with pytest.raises(ValueError, match="'median'"):
        reward_formula(PARTS, "median")


def test_a_reward_is_recorded_with_its_aggregation_and_without_folders_of_this_machine(tmp_path):
    places = {"model": str(tmp_path / "judge"), "tokenizer": str(tmp_path / "words")}
    parts = [{"name": "good", "weight": 1.0, "label": 0, "revision": None, **places}]
    recorded = [{"name": "good", "weight": 1.0, "label": 0, "model": "judge", "tokenizer": "words"}]
    reward = SimpleNamespace(describe=lambda: parts, aggregation="minimum")
    assert reward_record(reward) == {"rewards": recorded, "aggregation": "minimum"}
    reward.aggregation = "weighted_sum"
    assert reward_record(reward)["aggregation"] is None


def test_a_reward_that_does_not_describe_itself_has_a_name_and_a_weight():
    assert describe_reward(len) == [{"name": "len", "weight": 1.0}]
