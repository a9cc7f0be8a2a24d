import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.rewards.combining.aggregate import (
    geometric_mean,
    mean_minus_std,
    minimum,
    weighted_mean,
    weighted_sum,
)

NAN = math.nan
ALL = (weighted_sum, weighted_mean, mean_minus_std, minimum, geometric_mean)


def same(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True)


def test_weighted_sum_by_hand():
    scores = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])
    # 1 * 1 + 0.5 * 2 = 2;  1 * -3 + 0.5 * 4 = -1
    assert weighted_sum(scores, torch.tensor([1.0, 0.5])).tolist() == [2.0, -1.0]


def test_missing_scores_are_left_out_and_nothing_is_rescaled():
    scores = torch.tensor([[1.0, NAN, 10.0], [NAN, NAN, NAN], [NAN, 3.0, NAN]])
    total = weighted_sum(scores, torch.tensor([1.0, 2.0, 0.5]))
    assert total[0] == 6.0  # 1 * 1 + 0.5 * 10
    assert total[1].isnan()
    assert total[2] == 6.0  # 2 * 3


def test_equals_what_trl_computes_where_a_text_has_any_score():
    torch.manual_seed(0)
    scores, weights = torch.randn(50, 3), torch.randn(3)
    scores[torch.rand(50, 3) < 0.3] = NAN
    scored = ~scores.isnan().all(dim=1)
    expected = (scores * weights.unsqueeze(0)).nansum(dim=1)
    torch.testing.assert_close(weighted_sum(scores, weights)[scored], expected[scored])
    assert weighted_sum(scores, weights)[~scored].isnan().all()


def test_weighted_mean_by_hand():
    scores = torch.tensor([[1.0, 4.0], [NAN, 4.0], [1.0, NAN], [NAN, NAN]])
    # (3 * 1 + 1 * 4) / 4;  4;  1;  nothing
    same(weighted_mean(scores, torch.tensor([3.0, 1.0])), [1.75, 4.0, 1.0, NAN])
    # What has no weight does not make a score.
    same(weighted_mean(scores, torch.tensor([0.0, 1.0])), [4.0, 4.0, NAN, NAN])


def test_minimum_by_hand():
    scores = torch.tensor([[1.0, 4.0, -9.0], [NAN, 4.0, -9.0], [3.0, 1.0, 0.0], [NAN, NAN, -9.0]])
    # 2 * 1 or 1 * 4;  1 * 4;  2 * 3 or 1 * 1; the third has no weight
    same(minimum(scores, torch.tensor([2.0, 1.0, 0.0])), [2.0, 4.0, 1.0, NAN])


def test_geometric_mean_by_hand():
    scores = torch.tensor([[0.25, 1.0], [0.5, 0.5], [0.0, 1.0], [NAN, 0.3], [NAN, NAN]])
    same(geometric_mean(scores, torch.tensor([1.0, 1.0])), [0.5, 0.5, 0.0, 0.3, NAN])
    # 0.25^(3/4) = 0.353553...; a 0 without weight changes nothing
    same(geometric_mean(scores[:1], torch.tensor([3.0, 1.0])), [0.25**0.75])
    same(geometric_mean(scores, torch.tensor([0.0, 1.0])), [1.0, 0.5, 1.0, 0.3, NAN])


@given(
    st.floats(0.015625, 1.0, width=32),
    st.lists(st.floats(0.125, 8.0, width=32), min_size=1, max_size=5),
)
def test_means_of_equal_scores_are_that_score(score, weights):
    scores = torch.full((1, len(weights)), score)
    for mean in (weighted_mean, geometric_mean):
        torch.testing.assert_close(mean(scores, torch.tensor(weights)), torch.tensor([score]))


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0.125, 8.0, width=32)), min_size=1, max_size=5))
def test_means_lie_between_the_scores_and_the_geometric_one_is_not_larger(pairs):
    scores, weights = torch.tensor(pairs).T
    mean, geometric = weighted_mean(scores[None], weights).item(), geometric_mean(scores[None], weights).item()
    assert scores.min() - 1e-5 <= geometric <= mean + 1e-5
    assert mean <= scores.max() + 1e-5


@pytest.mark.parametrize("function", ALL)
def test_the_order_of_the_rewards_does_not_matter(function):
    scores, weights = torch.rand(20, 3), torch.rand(3)
    scores[torch.rand(20, 3) < 0.3] = NAN
    turned = function(scores.flip(1), weights.flip(0))
    torch.testing.assert_close(function(scores, weights), turned, equal_nan=True)


@pytest.mark.parametrize("function", ALL)
def test_no_texts_give_no_totals(function):
    assert function(torch.zeros(0, 2), torch.ones(2)).shape == (0,)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(("scores", "weights"), [((2, 3), (2,)), ((3,), (3,)), ((2, 3), (3, 1))])
def test_shapes_that_do_not_fit_are_both_printed(function, scores, weights):
    both = f"aggregation needs scores (N, K) and weights (K,), found scores {scores} and weights {weights}"
    with pytest.raises(ValueError, match=re.escape(both)):
        function(torch.zeros(scores), torch.zeros(weights))


def test_the_mean_less_disagreement_by_hand():
    scores = torch.tensor([[1.0, 3.0], [2.0, 2.0], [NAN, 5.0], [NAN, NAN], [4.0, 0.0]])
    # mean 2, deviation 1; agreed on 2; one judge alone; nothing; mean 2, deviation 2
    same(mean_minus_std(scores, torch.ones(2), 0.5), [1.5, 2.0, 5.0, NAN, 1.0])
    same(mean_minus_std(scores, torch.ones(2)), [1.0, 2.0, 5.0, NAN, 0.0])
    # Weights 3 and 1: mean (3 + 3) / 4, variance (3 * 0.25 + 2.25) / 4.
    same(mean_minus_std(scores[:1], torch.tensor([3.0, 1.0]), 2.0), [1.5 - 2 * math.sqrt(0.75)])
    # Without a coefficient it is the mean.
    same(
        mean_minus_std(scores, torch.tensor([3.0, 1.0]), 0.0), weighted_mean(scores, torch.tensor([3.0, 1.0])).tolist()
    )
