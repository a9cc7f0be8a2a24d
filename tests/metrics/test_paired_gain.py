import numpy as np
import pytest
import scipy.stats

from trl_rewards_plugin.metrics.paired_gain import paired_bootstrap, student_quantile


def test_bootstrap_mean_is_the_mean_difference():
    mean, (low, high) = paired_bootstrap(np.array([1.0, 2.0, 3.0, 0.0, 0.0]), np.array([2.0, 2.0, 6.0, 1.0, 0.0]))
    assert mean == pytest.approx(1)
    assert low < mean < high


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_too_few_pairs_have_no_interval(pairs):
    assert paired_bootstrap(np.zeros(pairs), np.arange(1.0, pairs + 1))[1] == (None, None)
    assert paired_bootstrap(np.zeros(5), np.arange(1.0, 6))[1] != (None, None)


@pytest.mark.parametrize("gain", [0.0, 0.5, 0.1])
def test_gains_that_are_all_alike_have_no_interval(gain):
    before = np.random.default_rng(0).normal(size=40)
    assert paired_bootstrap(before, before + gain) == (pytest.approx(gain), (None, None))


def draws(kind, generator, shape):
    """Differences of mean 1."""
    if kind == "normal":
        return generator.normal(1, 1, shape)
    return generator.exponential(1, shape) if kind == "exponential" else generator.lognormal(-0.5, 1, shape)


@pytest.mark.parametrize(("kind", "least"), [("normal", 0.94), ("exponential", 0.9), ("lognormal", 0.85)])
@pytest.mark.parametrize("pairs", [5, 10, 20])
def test_the_interval_covers_the_mean_about_as_often_as_it_says(kind, least, pairs):
    runs = draws(kind, np.random.default_rng(pairs), (300, pairs))
    ends = [paired_bootstrap(np.zeros(pairs), run, resamples=300)[1] for run in runs]
    assert np.mean([low <= 1 <= high for low, high in ends]) >= least


def test_neither_end_is_within_student_s_t():
    difference = np.random.default_rng(2).exponential(1, 12)
    mean, (low, high) = paired_bootstrap(np.zeros(12), difference)
    reach = scipy.stats.t.ppf(0.975, 11) * difference.std(ddof=1) / 12**0.5
    assert low <= mean - reach * 0.999
    assert high >= mean + reach * 0.999
    assert high - mean > mean - low  # skewed as the gains are


@pytest.mark.parametrize("freedom", [4, 5, 9, 30, 95])
def test_the_quantile_of_students_t(freedom):
    assert student_quantile(0.975, freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=3e-3)


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
