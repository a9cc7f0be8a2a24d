import numpy as np
import pytest

from trl_rewards_plugin.metrics.paired_gain import paired_bootstrap


def test_bootstrap_mean_is_the_mean_difference():
    mean, (low, high) = paired_bootstrap(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 6.0]))
    assert mean == pytest.approx(4 / 3)
    assert 0.0 <= low <= mean <= high <= 3.0


def test_bootstrap_of_equal_differences_has_no_width():
    before = np.array([0.0, 5.0, -2.0, 1.0])
    mean, interval = paired_bootstrap(before, before + 0.5)
    assert (mean, *interval) == pytest.approx((0.5, 0.5, 0.5))


def test_bootstrap_of_two_pairs_is_the_binomial_by_hand():
    # Differences 0 and 1: a resampled mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4, so the 2.5 % and 97.5 %
    # quantiles are 0 and 1, and the 30 % and 70 % ones are 1/2.
    before, after = np.zeros(2), np.array([0.0, 1.0])
    assert paired_bootstrap(before, after)[1] == (0.0, 1.0)
    assert paired_bootstrap(before, after, level=0.4)[1] == (0.5, 0.5)


def test_bootstrap_width_is_that_of_the_normal_interval():
    difference = np.random.default_rng(1).normal(0.3, 1.0, 400)
    mean, (low, high) = paired_bootstrap(np.zeros(400), difference)
    half = 1.96 * difference.std(ddof=1) / 20
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.01)


def test_bootstrap_repeats_itself_and_leaves_the_global_generator_alone():
    values = np.arange(9.0) ** 2
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    first = paired_bootstrap(values, values[::-1].copy(), seed=5)
    assert first == paired_bootstrap(values, values[::-1].copy(), seed=5)
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize(("before", "after"), [(np.zeros(2), np.zeros(3)), (np.zeros(0), np.zeros(0))])
def test_bootstrap_refuses_unpaired_scores(before, after):
    with pytest.raises(ValueError, match="same N"):
        paired_bootstrap(before, after)
