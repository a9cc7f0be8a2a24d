from types import SimpleNamespace

import pytest

from trl_rewards_plugin.rewards import LengthReward, MultiClassifierReward
from trl_rewards_plugin.rewards.combining.aggregate import AGGREGATIONS
from trl_rewards_plugin.runs.reward_description import (
    describe_reward,
    formula_of,
    reward_formula,
    reward_record,
    targets_in_words,
)

PARTS = [{"name": "a", "weight": 1.0}, {"name": "b", "weight": 0.5}, {"name": "c", "weight": 0.0}]
FORMULAS = {
    "weighted_sum": "1 x a + 0.5 x b + 0 x c",
    "weighted_mean": "(1 x a + 0.5 x b + 0 x c) / 1.5",
    "mean_minus_std": "(1 x a + 0.5 x b + 0 x c) / 1.5 less their disagreement",
    "minimum": "the minimum of 1 x a, 0.5 x b",
    "geometric_mean": "(a^1 x b^0.5 x c^0)^(1 / 1.5)",
}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_aggregation_has_its_formula(aggregation):
    assert reward_formula(PARTS, aggregation) == FORMULAS[aggregation]


def test_a_coefficient_of_the_disagreement_stands_in_the_formula():
    judges = [LengthReward(name="a"), LengthReward(name="b")]
    reward = MultiClassifierReward(judges, aggregation="mean_minus_std", disagreement_coef=0.5)
    assert formula_of(reward) == "(1 x a + 1 x b) / 2 less 0.5 x their disagreement"


def test_targets_stand_beside_the_objective():
    parts = [PARTS[0], {"name": "b", "weight": 0.0, "constraints": {"min": 0.3, "max": 2.0}}]
    parts.append({"name": "c", "weight": 0.0, "constraints": {"max": 8.0}})
    assert reward_formula(parts) == "1 x a, with mean b at least 0.3 and at most 2 and mean c at most 8"


def test_what_became_of_targets_in_words():
    targets = {
        "a": {"min": 0.3, "mean": 0.352, "slack": 0.052},
        "b": {"max": 8.0, "mean": 9.1, "slack": -1.1},
        "c": {"min": 0.0, "mean": None, "slack": None},
    }
    assert targets_in_words(targets) == [
        "a at least 0.3: mean 0.352, met by 0.052",
        "b at most 8: mean 9.100, missed by 1.100",
        "c at least 0: missed, nothing was scored",
    ]


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


def test_the_record_of_judges_of_one_question_has_the_price_of_their_disagreement():
    judges = [LengthReward(name="one", max_length=3), LengthReward(name="two", max_length=5)]
    found = [
        reward_record(MultiClassifierReward(judges, aggregation="mean_minus_std", **how))
        for how in ({}, {"disagreement_coef": 0.5})
    ]
    assert [record["aggregation"] for record in found] == ["mean_minus_std"] * 2
    assert [record.get("disagreement_coef") for record in found] == [None, 0.5]


def test_a_reward_that_does_not_describe_itself_has_a_name_and_a_weight():
    assert describe_reward(len) == [{"name": "len", "weight": 1.0}]
