import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.ppo.maths.advantages import (
    gae,
    group_relative,
    leave_one_out,
    normalized_sum,
    reward_to_go,
    token_rewards,
)

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


def test_reward_to_go_by_hand():
    # Row 0, gamma 0.5: 4; 2 + 2 = 4; 1 + 2 = 3. Row 1 ends after its first token.
    rewards = torch.tensor([[1.0, 2.0, 4.0], [3.0, 7.0, 7.0]])
    assert reward_to_go(rewards, MASK, gamma=0.5).tolist() == [[3.0, 4.0, 4.0], [3.0, 0.0, 0.0]]


def test_leave_one_out_by_hand():
    # First prompt: 1 against (2 + 6) / 2, 2 against 3.5, 6 against 1.5. Second: all alike.
    totals = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    assert leave_one_out(totals, 3).tolist() == [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]


def test_group_relative_by_hand():
    # First prompt: mean 3, deviations -2, 0, 2, unbiased std 2. Second: no spread, so nothing to learn.
    advantages = group_relative(torch.tensor([1.0, 3.0, 5.0, 4.0, 4.0, 4.0]), 3, epsilon=0.0)
    assert advantages[:3].tolist() == [-1.0, 0.0, 1.0]
    assert group_relative(torch.tensor([4.0, 4.0, 4.0]), 3).tolist() == [0.0, 0.0, 0.0]


groups = st.integers(2, 5).flatmap(
    lambda size: st.tuples(
        st.just(size), st.lists(st.lists(st.floats(-9, 9), min_size=size, max_size=size), min_size=1, max_size=4)
    )
)


def test_the_scale_of_group_advantages_by_hand():
    totals = torch.tensor([1.0, 3.0, 0.0, 8.0])  # deviations -1, 1, -4, 4; sqrt(2) and sqrt(32) within the groups
    by_batch = 1e-4 + (38 / 3) ** 0.5  # the mean of all is 3, squares 4 + 0 + 9 + 25
    assert group_relative(totals, 2, "none").tolist() == [-1.0, 1.0, -4.0, 4.0]
    assert group_relative(totals, 2, "batch").tolist() == pytest.approx(
        [-1 / by_batch, 1 / by_batch, -4 / by_batch, 4 / by_batch]
    )
    assert torch.equal(group_relative(totals, 2, "group"), group_relative(totals, 2))


def test_the_batch_is_that_of_all_processes():
    totals, other = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 8.0])
    both = group_relative(torch.cat([totals, other]), 2, "batch")

    def add_the_other(sums):  # first count and total, then squares around the mean of all
        return sums + (torch.tensor([2.0, 8.0]) if sums.dim() else torch.tensor(9.0 + 25.0))

    torch.testing.assert_close(group_relative(totals, 2, "batch", reduce=add_the_other), both[:2])


def trl_normalize_then_sum(rewards_per_func, weights, num_generations):
    """As GRPOTrainer of TRL 1.16 has it, in its own order and names."""

    def nanstd(tensor, dim):
        variance = torch.nanmean((tensor - torch.nanmean(tensor, dim=dim, keepdim=True)) ** 2, dim=dim, keepdim=True)
        count = torch.sum(~torch.isnan(tensor), dim=dim, keepdim=True)
        correction = torch.where(count > 1, count / (count - 1), torch.nan)
        return torch.sqrt(variance * correction)

    grouped = rewards_per_func.view(-1, num_generations, rewards_per_func.shape[1])
    reward_k = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (nanstd(grouped, 1) + 1e-4)
    rewards = (reward_k.view_as(rewards_per_func) * torch.tensor(weights, dtype=reward_k.dtype).unsqueeze(0)).nansum(
        dim=1
    )
    return (rewards - torch.nanmean(rewards)) / (nanstd(rewards, 0) + 1e-4)


@given(st.integers(0, 2**16), st.sampled_from([2, 4]), st.sampled_from([0.1, 1.0, 30.0]))
def test_normalize_then_sum_has_trl_s_numbers(seed, size, spread):
    generator = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(16, 3, generator=generator, dtype=torch.float64)
    scores[torch.rand(16, 3, generator=generator) < 0.2] = torch.nan
    scores[:, 0] = scores[:, 0].nan_to_num(0.5)
    scores[:size, 1] = 2.0  # a group that one reward does not tell apart
    ours = group_relative(normalized_sum(scores, [1.0, 0.5, 2.0], size), size, "batch")
    torch.testing.assert_close(ours, trl_normalize_then_sum(scores, [1.0, 0.5, 2.0], size), atol=1e-6, rtol=1e-6)


def test_normalize_then_sum_has_trl_s_numbers_in_float32():
    scores = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    ours = group_relative(normalized_sum(scores, [1.0, 0.5], 8), 8, "batch")
    torch.testing.assert_close(ours, trl_normalize_then_sum(scores, [1.0, 0.5], 8), atol=1e-6, rtol=0)


def test_normalize_then_sum_by_hand():
    # The second reward is a hundred times as large and counts no more: the two cancel where they disagree.
    scores = torch.tensor([[0.0, 100.0], [1.0, 0.0], [0.0, 0.0], [1.0, 100.0]])
    one = 0.5 / (0.5**0.5 + 1e-4)  # of two scores that lie 1 apart; epsilon is less of 100
    hundred = 50 / (5000**0.5 + 1e-4)
    expected = [hundred - one, one - hundred, -one - hundred, one + hundred]
    assert normalized_sum(scores, [1.0, 1.0], 2).tolist() == pytest.approx(expected, abs=1e-6)


@given(groups, st.floats(-50, 50))
def test_group_advantages_sum_to_0_and_ignore_what_a_prompt_is_worth(sized, worth):
    size, totals = sized
    flat = torch.tensor(totals, dtype=torch.float64).flatten()
    shifted = flat + worth
    for estimate in (leave_one_out, group_relative):
        advantages = estimate(flat, size)
        torch.testing.assert_close(
            advantages.view(-1, size).sum(1), torch.zeros(len(totals)).double(), atol=1e-6, rtol=0
        )
        torch.testing.assert_close(estimate(shifted, size), advantages, atol=1e-6, rtol=1e-6)


@given(groups)
def test_leave_one_out_is_the_group_s_deviation_times_n_over_n_minus_1(sized):
    size, totals = sized
    table = torch.tensor(totals, dtype=torch.float64)
    expected = (table - table.mean(1, keepdim=True)) * size / (size - 1)
    torch.testing.assert_close(leave_one_out(table.flatten(), size), expected.flatten())


@pytest.mark.parametrize(("rows", "size"), [(4, 1), (5, 2)])
def test_groups_that_do_not_divide_the_batch_print_both_numbers(rows, size):
    with pytest.raises(ValueError, match=rf"got \({rows},\) and {size}"):
        leave_one_out(torch.zeros(rows), size)


@given(rows, st.floats(0, 1), st.floats(0, 1))
def test_gae_agrees_with_its_definition_as_a_sum_in_float64(pairs, gamma, lam):
    """advantage[t] = sum over l of (gamma lam)^l delta[t + l]: equation 16 of the paper, without the recursion."""
    rewards, values = ([pair[i] for pair in pairs] for i in (0, 1))
    deltas = [
        reward + gamma * (values[t + 1] if t + 1 < len(values) else 0.0) - values[t]
        for t, reward in enumerate(rewards)
    ]
    expected = [
        sum((gamma * lam) ** (later - t) * deltas[later] for later in range(t, len(deltas)))
        for t in range(len(deltas))
    ]
    tensors = (torch.tensor([numbers], dtype=torch.float64) for numbers in (rewards, values))
    mask = torch.ones(1, len(rewards), dtype=torch.bool)
    advantages, returns = gae(*tensors, mask, gamma=gamma, lam=lam)
    assert advantages[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert returns[0].tolist() == pytest.approx([a + v for a, v in zip(expected, values, strict=True)], abs=1e-6)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 16])
@pytest.mark.parametrize("level", [0.1, -10.1, 1000.1, 1e6 / 3])
@pytest.mark.parametrize("estimate", [leave_one_out, group_relative])
def test_equal_rewards_in_a_group_have_the_advantage_0_at_any_level(estimate, level, size):
    totals = (level * (1 + torch.rand(200, generator=torch.Generator().manual_seed(0)))).repeat_interleave(size)
    assert not estimate(totals, size).any()


@pytest.mark.parametrize("estimate", [leave_one_out, group_relative])
def test_group_advantages_at_a_high_level_are_those_of_float64(estimate):
    totals = 1000 + torch.rand(600, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(estimate(totals, 6).double(), estimate(totals.double(), 6), atol=1e-6, rtol=1e-5)
