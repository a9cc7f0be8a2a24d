import numpy as np
import pytest

from trl_rewards_plugin.recipes import statistics


def test_bootstrap_mean_is_the_mean_difference():
    mean, (low, high) = statistics.paired_bootstrap(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 6.0]))
    assert mean == pytest.approx(4 / 3)
    assert 0.0 <= low <= mean <= high <= 3.0


def test_bootstrap_of_equal_differences_has_no_width():
    before = np.array([0.0, 5.0, -2.0, 1.0])
    mean, interval = statistics.paired_bootstrap(before, before + 0.5)
    assert (mean, *interval) == pytest.approx((0.5, 0.5, 0.5))


def test_bootstrap_of_two_pairs_is_the_binomial_by_hand():
    # Differences 0 and 1: a resampled mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4, so the 2.5 % and 97.5 %
    # quantiles are 0 and 1, and the 30 % and 70 % ones are 1/2.
    before, after = np.zeros(2), np.array([0.0, 1.0])
    assert statistics.paired_bootstrap(before, after)[1] == (0.0, 1.0)
    assert statistics.paired_bootstrap(before, after, level=0.4)[1] == (0.5, 0.5)


def test_bootstrap_width_is_that_of_the_normal_interval():
    difference = np.random.default_rng(1).normal(0.3, 1.0, 400)
    mean, (low, high) = statistics.paired_bootstrap(np.zeros(400), difference)
    half = 1.96 * difference.std(ddof=1) / 20
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.01)


def test_bootstrap_repeats_itself_and_leaves_the_global_generator_alone():
    values = np.arange(9.0) ** 2
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    first = statistics.paired_bootstrap(values, values[::-1].copy(), seed=5)
    assert first == statistics.paired_bootstrap(values, values[::-1].copy(), seed=5)
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize(("before", "after"), [(np.zeros(2), np.zeros(3)), (np.zeros(0), np.zeros(0))])
def test_bootstrap_refuses_what_is_no_pair(before, after):
    with pytest.raises(ValueError, match="same N"):
        statistics.paired_bootstrap(before, after)


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
