import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import LengthReward, MultiClassifierReward, RepetitionReward


def words(count):
    return " ".join(["word"] * count)


def test_length_by_hand():
    window = LengthReward(min_length=4, max_length=10)
    texts = [words(count) for count in (0, 1, 4, 10, 15, 20, 1000)]
    assert window(texts) == [0.0, 0.25, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert LengthReward(min_length=4)(texts)[-1] == 1.0
    assert LengthReward(max_length=10)(texts)[0] == 1.0
    assert LengthReward(max_length=4, unit="characters")(["abcd", "abcdef"]) == [1.0, 0.5]


def test_repetition_by_hand():
    # a b a, b a b, a b a: 2 of 3 are different
    assert RepetitionReward()(["a b A b a", "a b c d", "a b", ""]) == [2 / 3, 1.0, 1.0, 1.0]
    assert RepetitionReward(ngram_size=1)(["a a a b"]) == [0.5]
    assert RepetitionReward(ngram_size=2, unit="characters")(["abab"]) == [2 / 3]


@given(st.lists(st.text(), max_size=5))
def test_both_lie_between_0_and_1_for_any_text(texts):
    for reward in (LengthReward(3, 5), RepetitionReward(2, unit="characters")):
        assert all(0.0 <= score <= 1.0 for score in reward(texts))


@pytest.mark.parametrize("reward", [LengthReward(3, 5), RepetitionReward(2)])
def test_they_are_rewards_for_trl(reward):
    chat = [[{"role": "assistant", "content": "one two three four one two"}]]
    texts = ["one two three four one two"]
    alone = reward(prompts=["p"], completions=texts, completion_ids=[[1]], trainer_state=None)
    assert alone == reward(completions=chat)
    assert alone == pickle.loads(pickle.dumps(reward))(completions=texts)
    assert pickle.loads(pickle.dumps(reward)).__name__ == reward.__name__ == reward.name
    assert MultiClassifierReward([reward]).score(texts).components[reward.name].tolist() == pytest.approx(alone)


def test_two_of_a_kind_take_different_names():
    pair = MultiClassifierReward([LengthReward(3, 5), LengthReward(max_length=40, unit="characters", name="short")])
    assert pair.component_names() == ["length", "short"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of them given"),
        ({"min_length": -1}, "whole numbers"),
        ({"min_length": 2.5}, "whole numbers"),
        ({"max_length": True}, "whole numbers"),
        ({"min_length": 5, "max_length": 4}, "are they swapped"),
        ({"max_length": 0}, "at least 1"),
        ({"min_length": 1, "unit": "tokens"}, "unit one of words, characters"),
        ({"min_length": 1, "name": "a b"}, "letters, digits"),
    ],
)
def test_a_length_window_that_is_none_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        LengthReward(**settings)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "3"])
def test_an_ngram_size_that_is_none_is_refused(size):
    with pytest.raises(InputError, match="whole number above 0"):
        RepetitionReward(size)
