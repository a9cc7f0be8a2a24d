"""Settings of MultiClassifierReward: what they do to totals, and which are refused when it is built."""

import json
import math
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import TrainerState

from tests.rewards.judges import judge, sentiment
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward, RemoteReward

NAN = math.nan
OPEN = math.inf


def first(completions, **kwargs):
    """The number before the comma of each text."""
    return [float(text.split(",")[0]) for text in completions]


def second(completions, **kwargs):
    return [None if text.endswith(",") else float(text.split(",")[1]) for text in completions]


def combined(weights=None, **settings):
    return MultiClassifierReward([first, second], weights, **settings)


def totals(reward, texts):
    return reward.score(texts).total.tolist()


# --- aggregation ---


@pytest.mark.parametrize(
    ("aggregation", "weights", "expected"),
    [
        ("weighted_sum", [1.0, 3.0], 0.25 + 3.0),
        ("weighted_mean", [1.0, 3.0], (0.25 + 3.0) / 4),
        ("minimum", [1.0, 3.0], 0.25),
        ("geometric_mean", [1.0, 1.0], 0.5),
    ],
)
def test_each_aggregation_by_hand(aggregation, weights, expected):
    reward = combined(weights, aggregation=aggregation)
    assert reward.aggregation == aggregation
    assert totals(reward, ["0.25,1", "0.25,"])[0] == expected
    assert reward(["0.25,1"]) == [expected]
    # A missing score is left out of each.
    assert totals(reward, ["0.25,"]) == [0.25]


def test_components_stay_raw():
    reward = combined([1.0, 2.0], aggregation="weighted_mean", normalization="zscore", clip=(-1.0, 1.0))
    logged, columns = {}, {}
    reward(["1,2", "3,5"], log_metric=logged.__setitem__, log_extra=columns.__setitem__)
    assert (logged["rewards/first/mean"], logged["rewards/second/mean"]) == (2.0, 3.5)
    assert columns == {"first": [1.0, 3.0], "second": [2.0, 5.0]}
    assert reward.score(["9,9"]).components["first"].tolist() == [9.0]
    assert reward.component("first")(completions=["9,9"]) == [9.0]


def test_geometric_mean_of_classifiers_takes_probabilities():
    settings = {"score_type": "probability"}
    one = ClassifierReward(judge(), label="good", name="quality", **settings)
    two = ClassifierReward(sentiment(), label="neutral", name="neutrality", **settings)
    scores = MultiClassifierReward([one, two], aggregation="geometric_mean").score(["hello", "a b"])
    product = scores.components["quality"] * scores.components["neutrality"]
    torch.testing.assert_close(scores.total, product.sqrt())
    logit = ClassifierReward(judge(), label="good", name="logit")
    with pytest.raises(InputError, match=r"probabilities[\s\S]*'logit' in reward 'logit'[\s\S]*'probability'"):
        MultiClassifierReward([one, logit], aggregation="geometric_mean")
    # What a clip makes a probability of is up to the user.
    MultiClassifierReward([one, logit], aggregation="geometric_mean", clip={"logit": (0.0, 1.0)})


def test_scores_that_are_not_probabilities_stop_with_name_and_text():
    with pytest.raises(InputError, match=r"from reward 'second' for geometric_mean[\s\S]*2.0 for '0.5,2'"):
        combined(aggregation="geometric_mean")(["1,1", "0.5,2"])
    with pytest.raises(InputError, match=r"-0\.25 for"):
        combined(aggregation="geometric_mean")(["-0.25,1"])
    # Float rounding of a probability is none.
    assert totals(combined(aggregation="geometric_mean"), ["1.0000005,1", "-0.0000005,1"]) == [1.0, 0.0]


def test_an_overflow_stops_with_the_text_and_the_parts():
    with pytest.raises(RuntimeError, match=r"overflows to inf for '3e38,3e38': first 3e\+38, second 3e\+38"):
        combined()(["1,1", "3e38,3e38"])
    with pytest.raises(RuntimeError, match="overflows to nan"):
        combined([10.0, -10.0], aggregation="weighted_sum")(["3e38,3e38"])


# --- normalisation and clipping ---


def test_a_fixed_mean_and_scale_by_hand():
    reward = combined([1.0, 10.0], normalization={"first": {"mean": 2, "scale": 4}})
    # (6 - 2) / 4 + 10 * 3
    assert totals(reward, ["6,3"]) == [31.0]


def test_clipping_comes_after_normalisation_and_before_the_weight():
    how = {"first": {"mean": 2.0, "scale": 4.0}}
    assert totals(combined([10.0, 0.0], normalization=how, clip={"first": (-0.5, 0.5)}), ["6,0", "0,0"]) == [5.0, -5.0]
    assert totals(combined(clip=(0.0, 1.0)), ["6,0.5", "-1,"]) == [1.5, 0.0]
    assert totals(combined(clip={"second": (-OPEN, 1)}), ["6,3", "6,-3"]) == [7.0, 3.0]


def test_a_call_learns_and_uses_what_it_learnt():
    reward = combined([1.0, 0.0], normalization={"first": "zscore"})
    # mean 2, std 1
    assert reward(["1,0", "3,0"]) == [-1.0, 1.0]
    # mean of 1, 3, 8 is 4; std sqrt((9 + 1 + 16) / 3)
    assert reward(["8,0"]) == pytest.approx([4 / math.sqrt(26 / 3)])


def test_scoring_uses_the_statistics_and_learns_nothing():
    reward = combined([1.0, 0.0], normalization={"first": "zscore"})
    assert totals(reward, ["5,0"]) == [5.0]
    reward(["1,0", "3,0"])
    before = reward.state_dict()
    assert totals(reward, ["5,0"]) == [3.0]
    assert reward.state_dict() == before
    with reward.frozen():
        assert reward(["5,0"]) == [3.0]
        with reward.frozen():
            pass
        assert reward(["5,0"]) == [3.0]
    assert reward.state_dict()["statistics"] == before["statistics"]
    reward(["5,0"])
    assert reward.state_dict()["statistics"] != before["statistics"]


def test_a_score_without_a_scale_says_so_once(caplog):
    reward = MultiClassifierReward([combined(normalization="zscore", name="inner")])
    for _ in range(2):
        reward.score(["5,0"])
    [said] = caplog.messages
    assert re.search(r"Expected: .* for first, second\nFound: .*'inner'.*\nNext: ", said)
    reward(["1,0", "3,0"])
    reward.score(["5,0"])
    assert len(caplog.messages) == 1


def test_the_repr_shows_every_setting_that_is_not_at_its_default():
    how = {"aggregation": "mean_minus_std", "clip": {"first": (0.0, 1.0)}, "disagreement_coef": 0.5}
    assert repr(combined(name="both")).endswith("weights=[1.0, 1.0], name='both')")
    assert repr(combined(name="both", **how)).endswith(
        "name='both', aggregation='mean_minus_std', clip={'first': (0.0, 1.0)}, disagreement_coef=0.5)"
    )


def test_a_sum_with_a_part_that_may_be_missing_is_warned_of(caplog):
    remote = RemoteReward("http://127.0.0.1:1", on_failure="none")
    MultiClassifierReward([remote])
    MultiClassifierReward([remote, first], aggregation="weighted_mean")
    assert caplog.messages == []
    MultiClassifierReward([remote, first])
    assert "'remote' has on_failure='none'" in caplog.text


def evaluated(reward, texts, **columns):
    with reward.frozen():
        return reward(texts, **columns)


def test_every_evaluation_has_the_scale_of_the_first_one():
    reward = combined([1.0, 0.0], normalization={"first": "zscore"})
    reward(["1,0", "3,0"])  # mean 2, std 1
    assert evaluated(reward, ["5,0"]) == [3.0]
    reward(["100,0", "300,0"])
    assert evaluated(reward, ["5,0"]) == [3.0]
    assert totals(reward, ["5,0"]) != [3.0]  # training went on


def test_a_first_evaluation_before_training_sets_the_scale_by_its_own_scores():
    reward = combined([1.0, 0.0], normalization={"first": "zscore"})
    assert evaluated(reward, ["1,0", "3,0"]) == [-1.0, 1.0]
    assert evaluated(reward, ["5,0"]) == [3.0]
    reward(["100,0", "300,0"])
    assert evaluated(reward, ["5,0"]) == [3.0]


def test_a_resumed_reward_keeps_the_scale_of_evaluation_and_an_old_state_has_none():
    reward = combined(normalization="zscore")
    reward(["1,2", "3,6"])
    expected = evaluated(reward, ["4,4"])
    reward(["100,200"])
    resumed, old = (combined(normalization="zscore") for _ in range(2))
    resumed.load_state_dict(json.loads(json.dumps(reward.state_dict())))
    assert evaluated(resumed, ["4,4"]) == evaluated(pickle.loads(pickle.dumps(reward)), ["4,4"]) == expected
    old.load_state_dict({"statistics": reward.state_dict()["statistics"]})
    assert evaluated(old, ["4,4"]) == totals(reward, ["4,4"]) != expected


def test_the_scale_and_the_weights_of_an_evaluation_are_logged():
    settings = {"normalization": {"first": "zscore"}, "weight_schedule": {"second": {0.0: 0.0, 1.0: 1.0}}}
    reward, logged = combined([1.0, 2.0], **settings), {}
    reward(["1,0", "3,0"], trainer_state=TrainerState(global_step=0, max_steps=8))
    evaluated(reward, ["5,1", "5,3"], log_metric=logged.__setitem__)
    assert logged["scale/first/mean"] == 2.0
    assert logged["scale/first/std"] == 1.0
    assert logged["weight/second"] == 2.0
    assert not any(name.startswith(("scale/second", "weight/first")) for name in logged)


def test_an_evaluation_that_fails_sets_no_scale():
    reward = combined([1.0, 3e38], normalization={"first": "zscore"})
    with reward.frozen(), pytest.raises(RuntimeError, match="overflows"):
        reward(["1,2"])
    assert "evaluation" not in reward.state_dict()


def test_each_component_logs_its_mean_and_its_unbiased_standard_deviation():
    logged = {}
    combined()(["1,5", "3,", "8,7"], log_metric=logged.__setitem__)
    assert logged == pytest.approx(
        {
            "rewards/first/mean": 4.0, "rewards/first/std": 13**0.5,
            "rewards/second/mean": 6.0, "rewards/second/std": 2**0.5,
        }
    )  # fmt: skip
    logged.clear()
    combined()(["1,5"], log_metric=logged.__setitem__)  # one score has no spread
    assert set(logged) == {"rewards/first/mean", "rewards/second/mean"}


def test_missing_scores_are_not_learnt():
    reward = combined(normalization={"second": "zscore"})
    reward(["0,1", "0,", "0,3"])
    assert reward.state_dict() == {"statistics": {"second": {"count": 2, "mean": 2.0, "m2": 2.0}}}


@pytest.mark.parametrize("text", ["x,1", "1,inf", "1e39,1", "1,x"])
def test_nothing_is_learnt_from_a_call_that_fails(text):
    reward = combined(normalization="zscore")
    reward(["1,2", "3,5"])
    before = reward.state_dict()
    with pytest.raises((RuntimeError, InputError)):
        reward(["7,7", text])
    assert reward.state_dict() == before


def test_nothing_is_learnt_where_only_the_total_fails():
    reward = combined([1.0, 3e38], normalization={"first": "zscore"})
    before = reward.state_dict()
    with pytest.raises(RuntimeError, match="overflows"):
        reward(["1,2"])
    assert reward.state_dict() == before


def test_the_state_is_json_and_restores_the_numbers():
    reward = combined(normalization="zscore")
    for batch in (["1,2", "3,5"], ["0.1,0.7"]):
        reward(batch)
    other = combined(normalization="zscore")
    other.load_state_dict(json.loads(json.dumps(reward.state_dict())))
    assert other.state_dict() == reward.state_dict() == pickle.loads(pickle.dumps(reward)).state_dict()
    assert totals(other, ["4,4"]) == totals(reward, ["4,4"]) == totals(pickle.loads(pickle.dumps(reward)), ["4,4"])
    assert other(["4,4"]) == reward(["4,4"])


def test_what_learns_nothing_has_no_state():
    assert combined().state_dict() == {}
    combined().load_state_dict({})


@pytest.mark.parametrize("state", [{}, {"statistics": {"first": {}}}, {"other": {}}, None, []])
def test_the_state_of_another_reward_is_refused(state):
    reward = combined(normalization="zscore")
    with pytest.raises(InputError):
        reward.load_state_dict(state)
    with pytest.raises(InputError, match="no reward"):
        combined().load_state_dict(reward.state_dict())


def test_a_combination_within_another_learns_with_it_and_keeps_its_state():
    inner = combined([1.0, 0.0], normalization={"first": "zscore"}, name="inner")
    outer = MultiClassifierReward([inner, second], [1.0, 1.0])
    logged = {}
    assert outer(["1,10", "3,20"], log_metric=logged.__setitem__) == [9.0, 21.0]
    assert {name: value for name, value in logged.items() if name.endswith("mean")} == {
        "rewards/inner/mean": 0.0,
        "rewards/second/mean": 15.0,
        # The inner one's parts lie below it: its "second" is no column of the outer one.
        "rewards/inner/first/mean": 2.0,
        "rewards/inner/second/mean": 15.0,
    }
    before = outer.state_dict()
    assert totals(outer, ["5,0"]) == [3.0]
    assert outer.state_dict() == before == {"rewards": {"inner": inner.state_dict()}}
    with outer.frozen():
        assert outer(["5,0"]) == [3.0]
    inner(["9,9"])
    with outer.frozen():
        assert outer(["5,0"]) == [3.0]
    outer.load_state_dict(before)
    assert outer.state_dict() == before


@pytest.mark.parametrize("text", ["7,x", "7,1e39"])
def test_a_combination_within_learns_and_logs_nothing_where_the_outer_call_fails(text):
    inner = MultiClassifierReward([first], normalization="zscore", name="inner")
    outer = MultiClassifierReward([inner, second])
    outer(["1,2", "3,5"])
    before, logged = outer.state_dict(), []
    with pytest.raises((RuntimeError, InputError), match="'second'"):
        outer(["7,7", text], log_metric=lambda *metric: logged.append(metric))
    assert outer.state_dict() == before
    assert logged == []


def test_eight_threads_learn_each_batch_once():
    reward = combined(normalization="zscore")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: reward([f"{number},1"]), range(200)))
    assert reward.state_dict()["statistics"]["first"]["count"] == 200
    assert reward.state_dict()["statistics"]["first"]["mean"] == pytest.approx(99.5)


# --- schedule ---


def test_a_schedule_follows_the_trainer_and_not_score():
    reward = combined([1.0, 2.0], weight_schedule={"second": {0.0: 0.0, 0.5: 1.0}})
    at = [reward(["1,10"], trainer_state=TrainerState(global_step=step, max_steps=8))[0] for step in (0, 2, 4, 8)]
    assert at == [1.0, 11.0, 21.0, 21.0]
    assert totals(reward, ["1,10"]) == [21.0]
    with reward.frozen():
        assert reward(["1,10"], trainer_state=TrainerState(global_step=2, max_steps=8)) == [21.0]
        assert reward(["1,10"]) == [21.0]
    assert reward.weights == [1.0, 2.0]


def test_a_schedule_without_a_trainer_is_refused():
    reward = combined(weight_schedule={"second": {0.0: 0.0, 1.0: 1.0}})
    with pytest.raises(InputError, match="trainer_state="):
        reward(["1,1"])


def test_a_reward_scheduled_to_0_is_left_out_of_a_minimum():
    reward = combined(aggregation="minimum", weight_schedule={"second": {0.0: 0.0, 1.0: 1.0}})
    assert reward(["1,-10"], trainer_state=TrainerState(global_step=0, max_steps=8)) == [1.0]
    assert reward(["1,-10"], trainer_state=TrainerState(global_step=8, max_steps=8)) == [-10.0]


def test_a_text_without_any_score_that_counts_has_no_total():
    for aggregation in ("weighted_mean", "minimum", "geometric_mean"):
        total = combined([0.0, 1.0], aggregation=aggregation).score(["1,", "1,1"]).total
        assert total[0].isnan()
        assert total[1] == 1.0


# --- refusals ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregation": "weighted_avg"}, "did you mean"),
        ({"aggregation": None}, "aggregation as one of weighted_sum"),
        ({"aggregation": "weighted_mean", "weights": [1.0, -1.0]}, "at least 0 for weighted_mean"),
        ({"aggregation": "geometric_mean", "weights": [1.0, -1.0]}, "at least 0 for geometric_mean"),
        ({"aggregation": "minimum", "weights": [0.0, 0.0]}, "a weight other than 0"),
        ({"weights": [0.0, -0.0]}, "the total would be 0 for every text"),
        ({"aggregation": "geometric_mean", "normalization": "zscore"}, "probabilities for geometric_mean"),
        ({"normalization": "z-score"}, "did you mean 'zscore'"),
        ({"normalization": {"mean": 0.0, "scale": 1.0}}, "for rewards of this combination, first, second"),
        ({"normalization": {"frist": "zscore"}}, "did you mean 'first'"),
        ({"normalization": {"first": {"mean": 0.0}}}, "normalization of 'first'"),
        ({"normalization": {"first": {"mean": 0.0, "scale": 0.0}}}, "above 0"),
        ({"normalization": {"first": {"mean": NAN, "scale": 1.0}}}, "finite"),
        ({"clip": (1.0, -1.0)}, "low below high"),
        ({"clip": 3.0}, "low, high"),
        ({"clip": (0.0, NAN)}, "low, high"),
        ({"clip": {"first": ("0", 1)}}, "clip of 'first'"),
        ({"weight_schedule": {0.0: 1.0}}, "for rewards of this combination"),
        ({"weight_schedule": [0.0, 1.0]}, "dict by reward name"),
        ({"weight_schedule": {"first": {}}}, "progress: factor"),
        ({"weight_schedule": {"first": {2.0: 1.0}}}, "from 0 to 1"),
        ({"weight_schedule": {"first": {0.0: -1.0}}}, "at least 0"),
        ({"weight_schedule": {"first": {"0": 1.0}}}, "progress: factor"),
    ],
)
def test_settings_that_do_not_fit_are_refused_when_it_is_built(settings, message):
    with pytest.raises(InputError, match=message):
        combined(**settings)
