"""Reward against KL of the tilted distribution and of best of n, by hand and against closed forms."""

import itertools
import math

import numpy as np
import pytest

from trl_rewards_plugin.metrics.reward_at_kl import best_of_count, reward_at_kl, tilted


def test_tilted_by_hand():
    # exp(0) : exp(log 3) = 1 : 3, so weights 1/4 and 3/4: reward 3/4 log 3; KL = log 2 + 1/4 log 1/4 + 3/4 log 3/4.
    kl, reward = tilted(np.array([[0.0, math.log(3)]]), 1.0)
    assert reward == pytest.approx(0.75 * math.log(3))
    assert kl == pytest.approx(math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    # A second prompt whose samples are alike stays as it is: both numbers are means over prompts.
    kl_of_two, reward_of_two = tilted(np.array([[0.0, math.log(3)], [1.0, 1.0]]), 1.0)
    assert (kl_of_two, reward_of_two) == pytest.approx((kl / 2, (reward + 1) / 2))


def test_tilting_little_is_plain_sampling_and_tilting_much_the_best_sample_at_log_n():
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    assert tilted(rewards, 1e9) == pytest.approx([0.0, rewards.mean()], abs=1e-6)
    assert tilted(rewards, 1e-9) == pytest.approx([math.log(8), rewards.max(1).mean()])


def test_the_kl_is_the_one_of_the_weights_and_pays_for_the_reward():
    # log-partition identity: beta x KL = reward - beta log mean exp(r / beta), which no policy of that KL exceeds.
    rewards, beta = np.random.default_rng(1).normal(size=(3, 16)), 0.7
    kl, reward = tilted(rewards, beta)
    partition = np.log(np.exp(rewards / beta).mean(1)).mean()
    assert kl == pytest.approx(reward / beta - partition)


def test_of_normal_rewards_it_is_the_normal_that_moved():
    # For r ~ N(0, s^2) the tilted policy has the mean s^2 / beta at s^2 / (2 beta^2) nats.
    rewards = 2.0 * np.random.default_rng(2).normal(size=(1, 200_000))
    assert tilted(rewards, 4.0) == pytest.approx([0.125, 1.0], rel=0.02)


def test_best_of_count_by_hand():
    # Of 1, 2, 3: pairs (1, 2), (1, 3), (2, 3) have the maxima 2, 3, 3.
    assert best_of_count(np.array([[3.0, 1.0, 2.0]]), 2) == pytest.approx([math.log(2) - 0.5, 8 / 3])
    assert best_of_count(np.array([[3.0, 1.0, 2.0]]), 1) == pytest.approx([0.0, 2.0])
    assert best_of_count(np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), 3) == pytest.approx([math.log(3) - 2 / 3, 1.5])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_best_of_count_is_the_mean_over_every_choice(count):
    rewards = np.random.default_rng(3).normal(size=5)
    expected = np.mean([max(choice) for choice in itertools.combinations(rewards, count)])
    assert best_of_count(rewards[None], count)[1] == pytest.approx(expected)


def test_best_of_n_is_below_the_tilted_policy_of_its_kl():
    curves = reward_at_kl(np.random.default_rng(4).normal(size=(200, 16)))
    best, tilt = np.array(curves["best_of_n"]), np.array(curves["tilted"])
    assert len(best) == 5  # 1, 2, 4, 8, 16
    assert len(tilt) == 17
    assert (np.diff(tilt, axis=0) > 0).all()
    assert tilt[-1, 0] < math.log(16)
    below = best[1:3]  # from half of log n on 16 samples show less than there is
    assert (np.interp(below[:, 0], *tilt.T) > below[:, 1] - 0.01).all()
    many = np.random.default_rng(4).normal(size=(20, 4096))
    kl, reward = np.array([best_of_count(many, count) for count in (2, 4, 8, 16)]).T
    assert (np.interp(kl, *np.array(reward_at_kl(many)["tilted"]).T) > reward).all()


def test_prompts_with_an_unscored_sample_are_left_out_and_nothing_to_tell_is_empty():
    rewards = np.array([[1.0, 2.0], [np.nan, 5.0]])
    assert reward_at_kl(rewards) == reward_at_kl(rewards[:1]) != {}
    assert reward_at_kl(np.array([[np.nan, 1.0]])) == {}
    assert reward_at_kl(np.array([[2.0, 2.0], [1.0, 1.0]])) == {}
    assert reward_at_kl(np.empty((0, 16))) == {}
