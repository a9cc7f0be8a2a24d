import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.ppo.maths.masking import (
    check_same_shape,
    first_eos_mask,
    masked_sum,
    masked_whiten,
)


def test_the_mask_ends_with_the_first_eos():
    ids = torch.tensor([[5, 6, 1, 0], [1, 0, 0, 0], [5, 6, 7, 8], [5, 1, 1, 9]])
    expected = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    assert torch.equal(first_eos_mask(ids, (1,)), expected)


def test_any_of_several_eos_ids_ends_a_response():
    assert first_eos_mask(torch.tensor([[5, 3, 1, 1]]), (1, 3)).tolist() == [[True, True, False, False]]


def test_a_masked_sum_ignores_what_is_masked_even_if_it_is_nan():
    values = torch.tensor([[1.0, 3.0, float("nan")]])
    mask = torch.tensor([[True, True, False]])
    assert masked_sum(values, mask).item() == 4.0


def test_whitening_by_hand():
    values = torch.tensor([[1.0, 2.0], [3.0, 99.0]])
    mask = torch.tensor([[True, True], [True, False]])
    # mean 2, unbiased variance 1
    assert torch.allclose(masked_whiten(values, mask), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), atol=1e-6)
    kept = masked_whiten(values, mask, shift_mean=False)
    assert torch.allclose(kept, torch.tensor([[1.0, 2.0], [3.0, 0.0]]), atol=1e-6)


scored = st.tuples(st.floats(-100, 100, width=32), st.booleans())


@given(
    st.lists(scored, min_size=2, max_size=12).filter(lambda tokens: sum(real for _, real in tokens) >= 2),
    st.booleans(),
)
def test_whitening_agrees_with_its_definition_in_float64(tokens, shift_mean):
    """Mean and variance by the standard library, in exact fractions; what is masked is NaN."""
    real = [value for value, is_real in tokens if is_real]
    mean, variance = statistics.mean(real), statistics.variance(real)
    kept = 0.0 if shift_mean else mean
    expected = [(value - mean) / math.sqrt(variance + 1e-8) + kept if is_real else 0.0 for value, is_real in tokens]
    values = torch.tensor([[value if is_real else math.nan for value, is_real in tokens]])
    mask = torch.tensor([[is_real for _, is_real in tokens]])
    whitened = masked_whiten(values, mask, shift_mean=shift_mean)
    assert whitened[0].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12), st.integers(0, 5))
def test_padding_on_the_right_changes_no_whitened_value(numbers, padding):
    values = torch.tensor([numbers])
    mask = torch.ones_like(values, dtype=torch.bool)
    wide = torch.nn.functional.pad(values, (0, padding), value=7.0)
    wide_mask = torch.nn.functional.pad(mask, (0, padding), value=False)
    narrow = masked_whiten(values, mask)
    assert torch.allclose(masked_whiten(wide, wide_mask)[:, : len(numbers)], narrow, atol=1e-6)


def test_whitening_over_two_processes_is_whitening_of_all_tokens():
    values, mask = torch.randn(4, 3), torch.ones(4, 3, dtype=torch.bool)
    sums: list[torch.Tensor] = []

    def of_both(tensor):  # what an all-reduce would return, from the recorded sums of the whole
        sums.append(tensor)
        return whole[len(sums) - 1]

    whole: list[torch.Tensor] = []
    expected = masked_whiten(values, mask, reduce=lambda tensor: whole.append(tensor) or tensor)
    assert torch.allclose(masked_whiten(values[:2], mask[:2], reduce=of_both), expected[:2])


def test_one_token_has_no_variance_and_is_only_shifted():
    assert masked_whiten(torch.tensor([[5.0]]), torch.tensor([[True]])).item() == 0.0


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"a \(2, 3\), b \(3, 2\)"):
        check_same_shape(a=torch.zeros(2, 3), b=torch.zeros(3, 2))
