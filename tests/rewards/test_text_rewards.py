import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import LengthReward, MultiClassifierReward, RepetitionReward, SimilarityReward
from trl_rewards_plugin.rewards.text_rewards import LONGEST


def words(count):
    return " ".join(["word"] * count)


def test_without_a_window_it_is_the_length():
    assert LengthReward()(["", "two  words", "a b c"]) == [0.0, 2.0, 3.0]
    assert LengthReward(unit="characters")(["abc "]) == [4.0]


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
def test_length_and_repetition_lie_between_0_and_1_for_any_text(texts):
    for reward in (LengthReward(3, 5), RepetitionReward(2, unit="characters")):
        assert all(0.0 <= score <= 1.0 for score in reward(texts))


@pytest.mark.parametrize("reward", [LengthReward(3, 5), RepetitionReward(2)])
def test_length_and_repetition_serve_trl(reward):
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
        ({"min_length": -1}, "whole numbers"),
        ({"min_length": 2.5}, "whole numbers"),
        ({"max_length": True}, "whole numbers"),
        ({"min_length": 5, "max_length": 4}, "are they swapped"),
        ({"max_length": 0}, "at least 1"),
        ({"min_length": 1, "unit": "tokens"}, "unit as one of words, characters"),
        ({"min_length": 1, "name": "a b"}, "letters, digits"),
    ],
)
def test_invalid_length_windows_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        LengthReward(**settings)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "3"])
def test_invalid_ngram_sizes_are_refused(size):
    with pytest.raises(InputError, match="whole number above 0"):
        RepetitionReward(size)


def test_rouge_by_hand():
    texts, summary = ["the cat sat"], ["the dog sat down now"]
    # Longest common subsequence "the ... sat": 2 of 3 words, 2 of 5.
    assert SimilarityReward("summary", measure="precision")(texts, summary=summary) == [pytest.approx(2 / 3)]
    assert SimilarityReward("summary", measure="recall")(texts, summary=summary) == [pytest.approx(2 / 5)]
    assert SimilarityReward("summary")(texts, summary=summary) == [pytest.approx(2 * 2 / (3 + 5))]
    # No pair of neighbours is common.
    assert SimilarityReward("summary", rouge_type="rouge2")(texts, summary=summary) == [0.0]
    assert SimilarityReward("summary", use_stemmer=True)(["cats"], summary=["cat"]) == [1.0]


def test_the_prompt_can_be_the_reference_as_text_or_chat():
    reward = SimilarityReward("prompt", rouge_type="rouge1")
    chat = [[{"role": "user", "content": "a b"}]]
    assert reward.__name__ == "rouge1_prompt"
    assert reward(completions=["a b"], prompts=chat) == reward(completions=["a b"], prompts=["a b"]) == [1.0]


def test_texts_without_a_reference_are_not_scored():
    reward = SimilarityReward("summary")
    assert reward(["a", "a", "", "b"], summary=["a", None, "a", "日本語"]) == [1.0, None, 0.0, None]
    total = MultiClassifierReward([reward]).score(["a", "a"], summary=[None, "a"]).total
    assert total[0].isnan()
    assert total[1] == 1.0


def test_long_texts_are_compared_by_their_beginnings():
    text = "word " * (LONGEST + 50)
    assert SimilarityReward("summary")([text, "a" * 100_000], summary=["word " * LONGEST, "b"]) == [1.0, 0.0]


def test_similarity_is_picklable_and_named_by_its_settings():
    reward = SimilarityReward("my summary", name="close")
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert SimilarityReward("my summary").__name__ == "rougeL_my_summary"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "'summary', with which reward 'rougeL_summary' compares[\\s\\S]*only completions"),
        ({"summery": ["a"]}, "only summery"),
        ({"summary": ["a", "b"]}, "1 values in 'summary'"),
        ({"summary": "a"}, "1 values in 'summary'"),
        ({"summary": 3}, "found: *int"),
        ({"summary": [3]}, r"summary\[0\]"),
    ],
)
def test_missing_and_invalid_reference_columns_are_refused(columns, message):
    with pytest.raises(InputError, match=f"(?i){message}"):
        SimilarityReward("summary")(["a"], **columns)


def test_missing_prompts_are_asked_for():
    with pytest.raises(InputError, match="pass prompts="):
        SimilarityReward("prompt")(["a"])


@pytest.mark.parametrize("settings", [{"rouge_type": "rougeLsum"}, {"measure": "f1"}, {"name": "a b"}])
def test_unknown_similarity_settings_are_refused(settings):
    with pytest.raises(InputError):
        SimilarityReward("summary", **settings)


def test_of_several_references_the_best_counts():
    reward = SimilarityReward("summary", rouge_type="rouge1", measure="recall")
    found = reward(["a b", "a b", "a b"], summary=[["a", "a b c d"], [], ["", "x"]])
    assert found == [1.0, None, 0.0]
