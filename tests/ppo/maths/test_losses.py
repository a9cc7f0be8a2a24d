import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.ppo.maths.losses import approximate_kl, policy_loss, value_loss


def test_policy_loss_by_hand():
    old = torch.zeros(1, 4)
    logprobs = torch.tensor([[math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5)]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss, clipped = policy_loss(logprobs, old, advantages, cliprange=0.2)
    # A gain is capped at ratio 1.2, a loss at 0.8; where clipping would flatter, the worse side counts.
    assert loss[0].tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8])
    assert clipped.tolist() == [[True, False, False, True]]


def test_clip_higher_caps_a_gain_later_and_a_loss_as_before():
    old = torch.zeros(1, 4)
    logprobs = torch.tensor([[math.log(1.25), math.log(1.5), math.log(0.5), math.log(1.5)]])
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    loss, clipped = policy_loss(logprobs, old, advantages, cliprange=0.2, cliprange_high=0.28)
    assert loss[0].tolist() == pytest.approx([-1.25, -1.28, 0.8, 1.5])
    assert clipped.tolist() == [[False, True, True, False]]


def test_ratio_1_gives_minus_the_advantage():
    logprobs, advantages = torch.randn(2, 3), torch.randn(2, 3)
    loss, clipped = policy_loss(logprobs, logprobs, advantages, cliprange=0.2)
    assert torch.equal(loss, -advantages)
    assert not clipped.any()


def test_the_gradient_at_ratio_1_is_that_of_the_policy_gradient():
    logprobs = torch.randn(2, 3, requires_grad=True)
    advantages = torch.randn(2, 3)
    policy_loss(logprobs, logprobs.detach(), advantages, 0.2)[0].sum().backward()
    assert torch.allclose(logprobs.grad, -advantages)


def test_no_gradient_flows_where_clipping_binds():
    logprobs = torch.tensor([[1.0]], requires_grad=True)
    policy_loss(logprobs, torch.zeros(1, 1), torch.ones(1, 1), 0.2)[0].sum().backward()
    assert logprobs.grad.item() == 0.0


def test_value_loss_by_hand():
    old, values = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.1, 2.0]])
    returns = torch.tensor([[1.5, 2.0]])
    loss, clipped = value_loss(values, old, returns, cliprange_value=0.2)
    # 0.5 * 0.4^2; then the value moved by 1, is clipped to 1.2, and is charged 0.5 * 0.8^2.
    assert loss[0].tolist() == pytest.approx([0.08, 0.32])
    assert clipped.tolist() == [[False, True]]


def test_approximate_kl_by_hand_and_its_order():
    assert approximate_kl(torch.tensor([[0.3]]), torch.tensor([[0.1]])).item() == pytest.approx(0.02)
    old = torch.randn(50, dtype=torch.double).softmax(0)
    new = (old.log() + 1e-3 * torch.randn(50, dtype=torch.double)).softmax(0)
    exact = (old * (old / new).log()).sum()
    estimate = (old * approximate_kl(new.log(), old.log())).sum()
    assert estimate.item() == pytest.approx(exact.item(), rel=0.05)


def numbers(low, high):
    return st.floats(low, high, width=32)


tokens = st.lists(st.tuples(numbers(-6, 0), numbers(-1, 1), numbers(-5, 5)), min_size=1, max_size=8)


@given(tokens, st.sampled_from([0.1, 0.2, 0.5]))
def test_the_policy_loss_agrees_with_its_definition_in_float64(rows, cliprange):
    """The surrogate by cases, as the paper's figure 1 draws it, and not as a maximum of two."""
    old, move, advantages = torch.tensor(rows, dtype=torch.float32).T[:, None]
    new = old + move
    expected = []
    for token in range(len(rows)):
        ratio = math.exp(new[0, token].item() - old[0, token].item())
        advantage = advantages[0, token].item()
        counted = min(ratio, 1 + cliprange) if advantage > 0 else max(ratio, 1 - cliprange)
        expected.append(-advantage * counted)
    loss, _ = policy_loss(new, old, advantages, cliprange)
    assert loss[0].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(
    st.lists(st.tuples(numbers(-5, 5), numbers(-5, 5), numbers(-5, 5)), min_size=1, max_size=8),
    st.sampled_from([0.1, 0.2, 1.0]),
)
def test_the_value_loss_agrees_with_its_definition_in_float64(rows, cliprange):
    values, old, returns = torch.tensor(rows, dtype=torch.float32).T[:, None]
    expected = []
    for value, before, target in zip(*(part[0].tolist() for part in (values, old, returns)), strict=True):
        held = before + math.copysign(min(abs(value - before), cliprange), value - before)
        expected.append(max((value - target) ** 2, (held - target) ** 2) / 2)
    loss, _ = value_loss(values, old, returns, cliprange)
    assert loss[0].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(tokens)
def test_the_approximate_kl_agrees_with_its_definition_in_float64(rows):
    old, move, _ = torch.tensor(rows, dtype=torch.float32).T[:, None]
    new = old + move
    expected = [(after - before) ** 2 / 2 for after, before in zip(new[0].tolist(), old[0].tolist(), strict=True)]
    assert approximate_kl(new, old)[0].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("function", [policy_loss, value_loss])
def test_shapes_that_differ_are_refused(function):
    with pytest.raises(ValueError, match="shapes must agree"):
        function(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 3), 0.2)
