import pytest

from trl_rewards_plugin.nearest import did_you_mean, nearest, suggestion


@pytest.mark.parametrize(
    ("word", "found"), [("tinny", "tiny"), ("TINY", "tiny"), ("Artikle", "article"), ("xyz", None), (7, None)]
)
def test_the_nearest_word_whatever_its_case(word, found):
    assert nearest(word, ["tiny", "article"]) == found


def test_the_known_word_is_given_as_it_is_written():
    assert nearest("neutral", ["NEUTRAL", "Positive"]) == "NEUTRAL"


def test_the_next_step_names_it_or_says_what_else():
    assert suggestion("tinny", {"tiny": 1}, "choose one") == "did you mean 'tiny'?"
    assert suggestion("seeds", ["seed"], "see --help", "--{}") == "did you mean --seed?"
    assert suggestion("xyz", ["seed"], "see --help") == "see --help"


def test_the_start_of_a_next_step_may_be_empty():
    assert did_you_mean("tinny", ["tiny"]) + "use one" == "did you mean 'tiny'? use one"
    assert did_you_mean("xyz", ["tiny"]) + "use one" == "use one"
    assert did_you_mean("label_1", ["LABEL_0", "LABEL_1"]) == "did you mean 'LABEL_1'? "
