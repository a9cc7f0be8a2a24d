"""Attention over sequences laid end to end: softmax(q k^T + bias) v of each alone, and its derivatives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_rewards_plugin.ppo.acceleration.packed_t5 import packed_attention

HEADS, WIDTH = 2, 3


def inputs(lengths, longest=None):
    """Queries, keys, values and a bias in double precision, all with gradients."""
    torch.manual_seed(0)
    packed = [torch.randn(sum(lengths), HEADS * WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    longest = max(lengths) if longest is None else longest
    return [*packed, torch.randn(HEADS, longest, longest, dtype=torch.float64, requires_grad=True)]


def written_out(query, key, value, bias, lengths):
    """Sequence by sequence and head by head, as the formula stands."""
    rows, start = [], 0
    for length in lengths:
        of_heads = []
        for head in range(HEADS):
            columns = slice(head * WIDTH, (head + 1) * WIDTH)
            q, k, v = (values[start : start + length, columns] for values in (query, key, value))
            of_heads.append((q @ k.T + bias[head, :length, :length]).softmax(-1) @ v)
        rows.append(torch.cat(of_heads, dim=1))
        start += length
    return torch.cat(rows)


def test_one_head_by_hand():
    query, key = torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0], [0.5]])
    value, bias = torch.tensor([[0.0], [4.0]]), torch.tensor([[[0.0, -1.0], [3.0, 3.0]]])
    # Both rows of scores are equal numbers, [0, 1 - 1] and [3, 3]: half of each value.
    assert packed_attention(query, key, value, bias, [2]).tolist() == [[2.0], [2.0]]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2))
def test_values_and_gradients_are_those_of_the_formula(lengths, spare):
    arguments = inputs(lengths, max(lengths) + spare)
    ours, plain = packed_attention(*arguments, lengths), written_out(*arguments, lengths)
    torch.testing.assert_close(ours, plain)
    direction = torch.randn_like(ours)
    gradients = [torch.autograd.grad(output, arguments, direction) for output in (ours, plain)]
    for own, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(own, expected)


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(lambda *values: packed_attention(*values, [3, 1, 4]), inputs([3, 1, 4]))


def test_a_forbidden_key_is_not_attended_to_and_leaves_gradients_finite():
    query, key, value, bias = inputs([3])
    causal = torch.full((3, 3), -torch.inf, dtype=torch.float64).triu(1)
    output = packed_attention(query, key, value, bias + causal, [3])
    torch.testing.assert_close(output[0], value[0])
    gradients = torch.autograd.grad(output.square().sum(), (query, key, value, bias))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[3][:, 0, 1:].eq(0).all()


def test_a_second_derivative_is_refused():
    query, key, value, bias = inputs([2])
    output = packed_attention(query, key, value, bias, [2])
    direction = torch.ones_like(output, requires_grad=True)
    (first,) = torch.autograd.grad(output, value, direction, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
