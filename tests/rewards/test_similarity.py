import pickle

import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import MultiClassifierReward, SimilarityReward
from trl_rewards_plugin.rewards.similarity import LONGEST


def test_rouge_by_hand():
    texts, summary = ["the cat sat"], ["the dog sat down now"]
    # Longest common subsequence "the ... sat": 2 of 3 words, 2 of 5.
    assert SimilarityReward("summary", measure="precision")(texts, summary=summary) == [pytest.approx(2 / 3)]
    assert SimilarityReward("summary", measure="recall")(texts, summary=summary) == [pytest.approx(2 / 5)]
    assert SimilarityReward("summary")(texts, summary=summary) == [pytest.approx(2 * 2 / (3 + 5))]
    # No pair of neighbours is common.
    assert SimilarityReward("summary", rouge_type="rouge2")(texts, summary=summary) == [0.0]
    assert SimilarityReward("summary", use_stemmer=True)(["cats"], summary=["cat"]) == [1.0]


def test_the_prompt_is_a_reference_too_in_either_form():
    reward = SimilarityReward("prompt", rouge_type="rouge1")
    chat = [[{"role": "user", "content": "a b"}]]
    assert reward.__name__ == "rouge1_prompt"
    assert reward(completions=["a b"], prompts=chat) == reward(completions=["a b"], prompts=["a b"]) == [1.0]


def test_what_has_no_reference_is_left_out():
    reward = SimilarityReward("summary")
    assert reward(["a", "a", "", "b"], summary=["a", None, "a", "日本語"]) == [1.0, None, 0.0, None]
    total = MultiClassifierReward([reward]).score(["a", "a"], summary=[None, "a"]).total
    assert total[0].isnan()
    assert total[1] == 1.0


def test_long_texts_are_compared_by_their_beginnings():
    text = "word " * (LONGEST + 50)
    assert SimilarityReward("summary")([text, "a" * 100_000], summary=["word " * LONGEST, "b"]) == [1.0, 0.0]


def test_it_is_picklable_and_shows_its_settings():
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
def test_a_column_that_is_not_there_or_does_not_fit_is_refused(columns, message):
    with pytest.raises(InputError, match=f"(?i){message}"):
        SimilarityReward("summary")(["a"], **columns)


def test_prompts_that_are_not_there_are_asked_for():
    with pytest.raises(InputError, match="pass prompts="):
        SimilarityReward("prompt")(["a"])


@pytest.mark.parametrize("settings", [{"rouge_type": "rougeLsum"}, {"measure": "f1"}, {"name": "a b"}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(InputError):
        SimilarityReward("summary", **settings)
