from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.rewards.inference.forward import TOKEN_BUDGET, token_batches, unique_rows

LENGTHS = st.lists(st.integers(0, 40), max_size=60)


def test_batches_by_hand():
    # Longest first; 10 + 10 padded tokens fill the budget of 20, then 4 texts of at most 5 tokens do.
    assert token_batches([5, 10, 1, 10, 3, 5, 2], token_budget=20) == [[1, 3], [0, 5, 4, 6], [2]]


def test_batch_size_counts_texts_and_the_budget_tokens():
    assert token_batches([100, 1, 1], batch_size=2, token_budget=None) == [[0, 1], [2]]
    assert token_batches([100, 1, 1, 1], batch_size=2, token_budget=10) == [[0], [1, 2], [3]]
    assert token_batches([100, 1, 1], token_budget=None) == [[0, 1, 2]]


def test_a_text_above_the_budget_goes_alone():
    assert token_batches([50, 3, 3], token_budget=10) == [[0], [1, 2]]


def test_the_default_budget_is_the_one_that_is_documented():
    assert TOKEN_BUDGET == 16_384
    assert [len(batch) for batch in token_batches([512] * 40)] == [32, 8]


@given(LENGTHS, st.integers(1, 100))
def test_every_text_once_and_within_the_budget(lengths, budget):
    batches = token_batches(lengths, token_budget=budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@given(LENGTHS, st.integers(1, 7))
def test_every_text_once_and_within_the_batch_size(lengths, size):
    batches = token_batches(lengths, size, None)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "p", "q"])), max_size=20))
def test_unique_rows_can_be_put_back(rows):
    distinct, places = unique_rows(rows)
    assert [distinct[place] for place in places] == rows
    assert len(set(distinct)) == len(distinct)
