import numpy as np
import pytest

from trl_rewards_plugin.recipes import paired_statistics as statistics


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "go." Then (they went.) home', ['He said "go."', "Then (they went.)", "home"]),
        ("no end", ["no end"]),
        ("a line\nanother one. third", ["a line", "another one.", "third"]),
        ("version 1.5 is out", ["version 1.5 is out"]),
        ("  \n ", []),
    ],
)
def test_split_sentences(text, expected):
    assert statistics.split_sentences(text) == expected


def test_best_of_picks_within_each_prompt():
    assert statistics.best_of(np.array([0.0, 2.0, 1.0, -3.0, -1.0, -2.0]), 3).tolist() == [1, 4]
    assert statistics.best_of(np.array([np.nan, -5.0]), 2).tolist() == [1]
    with pytest.raises(ValueError, match="B \\* 4"):
        statistics.best_of(np.zeros(6), 4)


def test_means_leave_out_what_was_not_scored():
    values = np.array([1.0, np.nan, 3.0])
    assert statistics.mean_scored(values) == 2.0
    assert statistics.spread_scored(values) == pytest.approx(2**0.5)
    assert statistics.mean_scored(np.array([np.nan])) is None
    assert statistics.spread_scored(np.array([1.0])) is None
