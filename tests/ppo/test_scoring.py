import math

import pytest

from trl_rewards_plugin.ppo.scoring import RewardError, score_completions


def score(rewards, weights=None, completions=("ab", "c"), prompts=("p", "q"), **columns):
    return score_completions(
        rewards,
        weights or [1.0] * len(rewards),
        list(prompts),
        list(completions),
        completion_ids=[[1], [2]],
        columns={"prompt": list(prompts), **columns},
        trainer_state=None,
    )


def named(name, values):
    def function(**kwargs):
        return values

    function.__name__ = name
    return function


def test_the_total_is_the_weighted_sum_and_every_mean_is_logged():
    scored = score([named("a", [1.0, 2.0]), named("b", [4.0, 0.0])], [1.0, 0.5])
    assert scored.total.tolist() == [3.0, 2.0]
    assert scored.metrics == {"rewards/a/mean": 1.5, "rewards/b/mean": 2.0}


def test_a_reward_without_an_opinion_is_left_out():
    scored = score([named("a", [1.0, None]), named("b", [math.nan, 3.0])])
    assert scored.total.tolist() == [1.0, 3.0]


def test_columns_reach_the_reward_and_what_it_logs_is_kept():
    def reward(completions, prompts, label, log_metric, **kwargs):
        log_metric("rewards/inner", 7.0)
        return [float(value) for value in label]

    scored = score([reward], label=[3, 5])
    assert scored.total.tolist() == [3.0, 5.0]
    assert scored.metrics["rewards/inner"] == 7.0


def test_a_reward_that_says_nothing_of_a_whole_batch_logs_no_mean():
    assert score([named("a", [None, None]), named("b", [1.0, 1.0])]).metrics == {"rewards/b/mean": 1.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "'bad' returned 1 values for 2 completions"),
        (["x", 1.0], "'bad' must return one float or None a completion"),
        (3.0, "'bad' must return one float or None a completion"),
        ([1.0, math.inf], "'bad' returned inf for the completion 'c'"),
        ([None, 1.0], "no reward gave a score to the completion 'ab'"),
    ],
)
def test_what_is_no_reward_stops_with_the_name_and_the_text(values, message):
    with pytest.raises(RewardError) as caught:
        score([named("bad", values)])
    assert message in str(caught.value)


def test_a_reward_that_raises_is_named_and_its_error_kept():
    def broken(**kwargs):
        raise KeyError("label")

    with pytest.raises(RewardError, match="'broken' raised KeyError") as caught:
        score([broken])
    assert isinstance(caught.value.__cause__, KeyError)
