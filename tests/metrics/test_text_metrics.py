import pytest

from trl_rewards_plugin.metrics import text_metrics as guards


def test_shares_by_hand():
    assert guards.distinct_share(["a b", "a  b", "c", "d"]) == 0.75
    assert guards.not_whole_input_share(["a b", "c", "x", "y"], ["a  b ", "c d", "X", "z"]) == 0.75


def test_the_whole_prompt_given_back_is_a_copy_too():
    prompts = ["the patient: sat", "the patient: ran", "the patient: ate"]
    found = guards.guard_metrics(["sat", "the patient: ran", "x"], guards.without_instruction(prompts), prompts)
    assert found["not_whole_input"] == pytest.approx(1 / 3)


def test_word_count():
    assert guards.word_count(["", "a", "a  b\nc"]).tolist() == [0, 1, 3]


def test_rouge_l_by_hand():
    # Longest common subsequence "a c" of 2: precision 2/2, recall 2/4, F1 = 2/3.
    scores = guards.rouge_l(["a c", "x", "a b c d"], ["a b c d"] * 3)
    assert scores == pytest.approx([2 / 3, 0, 1])


def test_guard_metrics_by_hand():
    found = guards.guard_metrics(["a c", "a b c d"], ["a b c d", "a  b c d"])
    assert found == pytest.approx(
        {"rouge_l_source": (2 / 3 + 1) / 2, "output_length": 3.0, "distinct": 1.0, "not_whole_input": 0.5}
    )


@pytest.mark.parametrize(
    ("prompts", "sources"),
    [
        (["summarize: a b", "summarize: a c"], ["b", "c"]),
        (["summarize: the cat", "summarize: this dog"], ["the cat", "this dog"]),  # not "e cat" and "is dog"
        (["Rewrite this.\nold cat", "Rewrite this.\nnew cat"], ["old cat", "new cat"]),
        (["the cat", "a dog"], ["the cat", "a dog"]),
        (["the cat", "the cat"], ["the cat", "the cat"]),
        (["the cat", "the cat sat"], ["cat", "cat sat"]),
        (["only one"], ["only one"]),
    ],
)
def test_the_words_that_all_prompts_begin_with_are_no_source(prompts, sources):
    assert guards.without_instruction(prompts) == sources
