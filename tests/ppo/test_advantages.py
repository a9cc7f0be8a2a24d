import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.ppo.advantages import gae, token_rewards

MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_the_score_lands_on_the_last_real_token_and_kl_on_every_one():
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.4, 9.0, 9.0]])
    rewards = token_rewards(torch.tensor([2.0, -1.0]), kl, MASK, kl_coef=0.5)
    assert torch.allclose(rewards, torch.tensor([[-0.05, -0.10, 1.85], [-1.2, 0.0, 0.0]]))


def test_a_wrong_number_of_scores_prints_both_shapes():
    with pytest.raises(ValueError, match=r"\(2,\) for kl \(2, 3\), got \(3,\)"):
        token_rewards(torch.zeros(3), torch.zeros(2, 3), MASK, 0.1)


def test_gae_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 2.0]])
    values = torch.tensor([[0.5, 1.0, 1.5]])
    # gamma 0.5, lambda 0.5. delta: 2 - 1.5 = 0.5; 0 + 0.75 - 1 = -0.25; 1 + 0.5 - 0.5 = 1.
    # advantage: 0.5; -0.25 + 0.25 * 0.5 = -0.125; 1 + 0.25 * -0.125 = 0.96875.
    advantages, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[0.96875, -0.125, 0.5]]
    assert returns.tolist() == [[1.46875, 0.875, 2.0]]


rows = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=8)


@given(rows)
def test_lambda_1_and_gamma_1_give_reward_to_go_minus_value(pairs):
    rewards, values = torch.tensor(pairs).T[:, None]
    mask = torch.ones_like(rewards, dtype=torch.bool)
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(advantages, to_go - values, atol=1e-4)
    assert torch.allclose(returns, to_go, atol=1e-4)


@given(rows, st.floats(0, 1))
def test_lambda_0_gives_the_one_step_error(pairs, gamma):
    rewards, values = torch.tensor(pairs).T[:, None]
    mask = torch.ones_like(rewards, dtype=torch.bool)
    advantages, _ = gae(rewards, values, mask, gamma=gamma, lam=0.0)
    following = torch.cat([values[:, 1:], torch.zeros(1, 1)], dim=1)
    assert torch.allclose(advantages, rewards + gamma * following - values, atol=1e-5)


@given(rows, st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_padding_on_the_right_changes_nothing(pairs, padding, gamma, lam):
    rewards, values = torch.tensor(pairs).T[:, None]
    mask = torch.ones_like(rewards, dtype=torch.bool)
    narrow = gae(rewards, values, mask, gamma=gamma, lam=lam)
    wide = gae(
        *(torch.nn.functional.pad(part, (0, padding), value=3.0) for part in (rewards, values)),
        torch.nn.functional.pad(mask, (0, padding), value=False),
        gamma=gamma,
        lam=lam,
    )
    for short, long in zip(narrow, wide, strict=True):
        assert torch.equal(short, long[:, : len(pairs)])
        assert not long[:, len(pairs) :].any()
