"""One token a row: the right chances, never a token that is not allowed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ppo.chi_square import p_value
from trl_rewards_plugin.ppo.policy.token_scores import draw_tokens


@pytest.mark.parametrize("vocabulary", [2, 300])
def test_tokens_come_in_proportion_to_their_probabilities(vocabulary):
    torch.manual_seed(0)
    draws = 20_000
    logprobs = (2 * torch.randn(vocabulary)).log_softmax(-1)
    tokens = draw_tokens(logprobs.exp().expand(draws, -1))
    counts = tokens[:, 0].bincount(minlength=vocabulary)
    assert tokens.shape == (draws, 1)
    assert p_value(counts, logprobs.double().exp() * draws) > 1e-3


def test_rows_are_drawn_independently():
    torch.manual_seed(0)
    rows = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).repeat(2000, 1)
    first, second = draw_tokens(rows)[:, 0].view(-1, 2).unbind(1)
    assert abs((first == second).float().mean().item() - 0.5) < 0.05


@given(
    allowed=st.lists(st.integers(0, 399), min_size=1, max_size=4, unique=True),
    sizes=st.lists(st.floats(-80, 0), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_a_token_that_is_not_allowed_is_never_drawn(allowed, sizes, seed):
    torch.manual_seed(seed)
    weights = torch.full((400,), -torch.inf)
    weights[allowed] = torch.tensor(sizes[: len(allowed)])
    tokens = draw_tokens(weights.softmax(-1).expand(64, -1))
    assert set(tokens[:, 0].tolist()) <= set(allowed)


@pytest.mark.parametrize("vocabulary", [5, 300])
def test_of_nan_some_token_is_drawn_so_that_the_sampler_can_report_it(vocabulary):
    tokens = draw_tokens(torch.full((3, vocabulary), torch.nan))
    assert ((tokens >= 0) & (tokens < vocabulary)).all()
