import math
from types import SimpleNamespace

import pytest
import torch

from trl_rewards_plugin.ppo.scoring import RewardError, score_completions, with_held_out


def score(rewards, weights=None, completions=("ab", "c"), prompts=("p", "q"), state=None, **columns):
    return score_completions(
        rewards,
        weights or [1.0] * len(rewards),
        list(prompts),
        list(completions),
        completion_ids=[[1], [2]],
        columns={"prompt": list(prompts), **columns},
        trainer_state=state,
    )


def named(name, values):
    def function(**kwargs):
        return values

    function.__name__ = name
    return function


def test_the_total_is_the_weighted_sum_and_every_mean_is_logged():
    scored = score([named("a", [1.0, 2.0]), named("b", [4.0, 0.0])], [1.0, 0.5])
    assert scored.total.tolist() == [3.0, 2.0]
    # Deviations 0.5 and 2 from the mean, of n - 1.
    spreads = {"rewards/a/std": math.sqrt(0.5), "rewards/b/std": math.sqrt(8.0)}
    assert scored.metrics == pytest.approx({"rewards/a/mean": 1.5, "rewards/b/mean": 2.0, **spreads})


def test_a_reward_without_an_opinion_is_left_out():
    scored = score([named("a", [1.0, None]), named("b", [math.nan, 3.0])])
    assert scored.total.tolist() == [1.0, 3.0]
    torch.testing.assert_close(scored.by_reward, torch.tensor([[1.0, math.nan], [math.nan, 3.0]]), equal_nan=True)


def test_a_held_out_reward_may_leave_texts_unscored():
    arguments = {"completion_ids": [[1], [2]], "columns": {}, "trainer_state": None, "may_be_missing": True}
    silent = [named("a", [None, 4.0]), named("b", [None, None])]
    some, none = (score_completions([one], [1.0], ["p", "q"], ["ab", "c"], **arguments) for one in silent)
    assert math.isnan(some.total[0])
    both = with_held_out(score([named("a", [1.0, 2.0])]), some)
    assert both.metrics["held_out_reward"] == 4.0
    assert both.table["held_out_reward"] == [None, 4.0]
    assert "held_out_reward" not in with_held_out(score([named("a", [1.0, 2.0])]), none).metrics


def test_columns_reach_the_reward_and_what_it_logs_is_kept():
    def reward(completions, prompts, label, log_metric, **kwargs):
        log_metric("rewards/inner", 7.0)
        return [float(value) for value in label]

    scored = score([reward], label=[3, 5])
    assert scored.total.tolist() == [3.0, 5.0]
    assert scored.metrics["rewards/inner"] == 7.0


def test_a_reward_that_says_nothing_of_a_whole_batch_logs_no_mean():
    metrics = score([named("a", [None, None]), named("b", [1.0, 1.0]), named("c", [2.0, None])]).metrics
    assert metrics == {"rewards/b/mean": 1.0, "rewards/b/std": 0.0, "rewards/c/mean": 2.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "'bad' returned 1 values for 2 completions"),
        (["x", 1.0], "'bad' must return one float or None per completion"),
        (3.0, "'bad' must return one float or None per completion"),
        ([1.0, math.inf], "'bad' returned inf for the completion 'c'"),
        ([None, 1.0], "no reward gave a score for the completion 'ab'"),
    ],
)
def test_what_is_no_reward_stops_with_the_name_and_the_text(values, message):
    with pytest.raises(RewardError) as caught:
        score([named("bad", values)])
    assert message in str(caught.value)


@pytest.mark.parametrize("values", [[1.0, math.inf], [1.0, None], [1.0, 1e39]])
def test_the_step_and_the_prompt_are_named(values):
    with pytest.raises(RewardError, match="after 7 steps for the completion 'c' to the prompt 'q'"):
        score([named("bad", values)], state=SimpleNamespace(global_step=7))


def test_the_table_has_a_column_for_every_reward_and_for_what_they_log():
    def judge(completions, log_extra, **kwargs):
        log_extra("words", (len(text.split()) for text in completions))
        return [1.5, None]

    scored = score([judge, named("b", [0.0, 2.0])])
    assert scored.table == {
        "prompt": ["p", "q"], "completion": ["ab", "c"], "judge": [1.5, None], "b": [0.0, 2.0], "words": [1, 1],
    }  # fmt: skip


def test_an_extra_column_of_another_length_is_refused():
    def judge(log_extra, **kwargs):
        log_extra("words", [1])
        return [1.0, 2.0]

    with pytest.raises(RewardError, match=r"log_extra\('words'\) got 1 values for 2 completions"):
        score([judge])


def test_a_reward_that_raises_is_named_and_its_error_kept():
    def broken(**kwargs):
        raise KeyError("label")

    with pytest.raises(RewardError, match="'broken' raised KeyError") as caught:
        score([broken])
    assert isinstance(caught.value.__cause__, KeyError)
