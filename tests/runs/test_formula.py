import pytest

from trl_rewards_plugin.rewards.combining.combination import AGGREGATIONS
from trl_rewards_plugin.runs.formula import reward_formula

PARTS = [{"name": "a", "weight": 1.0}, {"name": "b", "weight": 0.5}, {"name": "c", "weight": 0.0}]
FORMULAS = {
    "weighted_sum": "1 x a + 0.5 x b + 0 x c",
    "weighted_mean": "(1 x a + 0.5 x b + 0 x c) / 1.5",
    "minimum": "the least of 1 x a, 0.5 x b",
    "geometric_mean": "(a^1 x b^0.5 x c^0)^(1 / 1.5)",
}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_aggregation_has_its_formula(aggregation):
    assert reward_formula(PARTS, aggregation) == FORMULAS[aggregation]


def test_another_aggregation_has_none():
    with pytest.raises(ValueError, match="'median'"):
        reward_formula(PARTS, "median")
