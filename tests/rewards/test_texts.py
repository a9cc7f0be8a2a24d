import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.names import check_name, clean_name
from trl_rewards_plugin.rewards.texts import as_texts, paired_texts, shortened


def test_plain_texts_stay_as_they_are():
    assert as_texts(["a", ""]) == ["a", ""]
    assert as_texts(("a",)) == ["a"]
    assert as_texts([]) == []


def test_of_messages_the_last_content_counts():
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert as_texts([messages, messages[:1]]) == ["hello", "hi"]


def test_text_parts_of_a_message_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert as_texts([[{"role": "assistant", "content": parts}]]) == ["ab"]


@pytest.mark.parametrize(
    "item",
    [
        None,
        3,
        [],
        ["hello"],
        {"content": "hello"},
        [{"role": "assistant"}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": [{"type": "image"}]}],
    ],
)
def test_invalid_texts_are_named_by_their_index(item):
    with pytest.raises(InputError, match=r"completions\[1\]"):
        as_texts(["fine", item])


@pytest.mark.parametrize("items", ["hello", None, 3])
def test_anything_but_a_list_is_refused(items):
    with pytest.raises(InputError, match="list of texts"):
        as_texts(items)


def test_prompts_are_as_many_as_completions():
    assert paired_texts(None, ["a"]) is None
    assert paired_texts([[{"role": "user", "content": "q"}]], ["a"]) == ["q"]
    with pytest.raises(InputError, match="1 prompts, one for each"):
        paired_texts(["p", "q"], ["a"])
    with pytest.raises(InputError, match=r"prompts\[0\]"):
        paired_texts([None], ["a"])


def test_names_are_cleaned_or_checked():
    assert clean_name("org/model name: LABEL_1") == "org_model_name_LABEL_1"
    assert clean_name("<lambda>") == "lambda"
    assert clean_name("//") == "reward"
    assert check_name("a-b_c.1") == "a-b_c.1"


@pytest.mark.parametrize("name", ["", "a b", "a/b", None, 1])
def test_names_outside_the_alphabet_are_refused(name):
    with pytest.raises(InputError, match="letters, digits"):
        check_name(name)


def test_long_texts_are_cut_for_messages():
    assert shortened("x" * 300) == repr("x" * 197 + "...")


@pytest.mark.parametrize(
    ("item", "step"), [(3, r"turn the numbers into texts"), (["a", "b"], "one text per row"), (None, "missing values")]
)
def test_the_next_step_fits_what_is_no_text(item, step):
    with pytest.raises(InputError) as caught:
        as_texts([item])
    assert step in caught.value.next_step
