import math
import re

import pytest
import torch

from trl_rewards_plugin.rewards.combine import weighted_sum

NAN = math.nan


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


def test_no_texts_give_no_totals():
    assert weighted_sum(torch.zeros(0, 2), torch.ones(2)).shape == (0,)


@pytest.mark.parametrize(("scores", "weights"), [((2, 3), (2,)), ((3,), (3,)), ((2, 3), (3, 1))])
def test_shapes_that_do_not_fit_are_both_printed(scores, weights):
    both = f"scores {scores} and weights {weights}"
    with pytest.raises(ValueError, match=re.escape(both)):
        weighted_sum(torch.zeros(scores), torch.zeros(weights))
