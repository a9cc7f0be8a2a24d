"""Targets by hand, on a problem whose answer is known, and in a combination, its state, a reward file and the log."""

import copy

import pytest
import torch
from transformers import TrainerState

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import LengthReward, MultiClassifierReward
from trl_rewards_plugin.rewards.combining.constraints import (
    DAMPING,
    LARGEST,
    RATE,
    Ascent,
    ascended,
    ascent_after,
    mixed,
    slack,
)
from trl_rewards_plugin.rewards.combining.running_statistics import Moments, moments_of


def at(progress):
    return TrainerState(global_step=round(100 * progress), max_steps=100)


def good(completions, **kwargs):
    return [float(text.count("good")) for text in completions]


def words(completions, **kwargs):
    return [float(len(text.split())) for text in completions]


def constrained(**settings):
    return MultiClassifierReward([good, words], **{"constraints": {"words": {"max": 2}}, **settings})


def test_slack_is_what_a_mean_has_left_before_it_misses():
    assert [slack(3.0, "min", 2.0), slack(3.0, "max", 2.0), slack(1.5, "max", 2.0)] == [1.0, -1.0, 0.5]


def test_a_multiplier_rises_by_the_rate_while_its_target_is_missed_and_stays_between_its_bounds():
    # Missed by a quarter of a standard deviation for a tenth of training (rate 20, damping 2), then met by as much.
    assert ascended(1.0, -0.25, 0.1) == (1.5, 2.0)
    assert ascended(1.0, 0.25, 0.1) == (0.5, 0.0)
    assert ascended(1.0, 0.0, 0.1) == (1.0, 1.0)
    assert (ascended(0.1, 5.0, 1.0), ascended(9.9, -5.0, 1.0)) == ((0.0, 0.0), (LARGEST, LARGEST))
    # Two steps of half the length are one step.
    assert ascended(ascended(1.0, -0.1, 0.05)[0], -0.1, 0.05) == pytest.approx(ascended(1.0, -0.1, 0.1))


def test_the_weights_of_the_mixture_and_its_constant_give_the_lagrangian():
    targets = {"b": {"min": 2.0, "max": 6.0}}
    ascent = Ascent({"b": {"min": 3.0, "max": 1.0}}, {}, {"b": 0.5})
    weights, constants = mixed({"a": 2.0, "b": 0.0}, targets, ascent)
    # whole = 1 + 3 + 1;  2 / 5;  (3 - 1) / 0.5 / 5;  (-3 * 2 + 1 * 6) / 0.5 / 5
    assert weights == pytest.approx({"a": 0.4, "b": 0.8})
    assert constants == {"b": pytest.approx(0.0)}
    for a, b in ((1.0, 2.5), (-4.0, 7.0)):
        lagrangian = (2 * a + 3 * (b - 2) / 0.5 + 1 * (6 - b) / 0.5) / 5
        assert weights["a"] * a + weights["b"] * b + constants["b"] == pytest.approx(lagrangian)


def test_the_ascent_is_that_of_the_scores_of_all_processes():
    one = {"b": {"min": 1.0}}
    scores, start = torch.tensor([1.0, 2.0, 6.0]), Ascent(one, one, progress=0.1)
    targets = {"b": {"min": 3.5}}
    whole = ascent_after(start, targets, [{"b": moments_of(scores)}], 0.2)
    # Mean 3, variance (4 + 1 + 9) / 3.
    assert whole.stds["b"] == pytest.approx((14 / 3) ** 0.5)
    assert whole.integrals["b"]["min"] == pytest.approx(1 + RATE * 0.1 * 0.5 / (14 / 3) ** 0.5)
    assert whole.multipliers["b"]["min"] == pytest.approx(
        whole.integrals["b"]["min"] + DAMPING * 0.5 / (14 / 3) ** 0.5
    )
    parts = [{"b": moments_of(scores[:1])}, {"b": Moments()}, {"b": moments_of(scores[1:])}]
    split = ascent_after(start, targets, parts, 0.2)
    assert split.multipliers["b"]["min"] == pytest.approx(whole.multipliers["b"]["min"])
    # The unit stays that of the first batch; a batch without scores says nothing; training anew begins at 0 again.
    later = ascent_after(whole, targets, [{"b": moments_of(10 * scores)}], 0.2)
    assert (later.stds, later.integrals) == (whole.stds, whole.integrals)
    assert ascent_after(whole, targets, [{"b": Moments()}], 0.9).multipliers == whole.multipliers
    anew = ascent_after(whole, targets, [{"b": moments_of(scores)}], 0.1).integrals["b"]["min"]
    assert anew == pytest.approx(whole.integrals["b"]["min"] + RATE * 0.1 * 0.5 / whole.stds["b"])


@pytest.mark.parametrize(("greatest", "met"), [(3.0, True), (-1.0, False)])
def test_policy_gradients_end_at_a_target_that_can_be_met_and_at_the_bound_for_one_that_cannot(greatest, met):
    """Actions of 0 to 9 words, the longer the better, a softmax policy, 0.2 x KL to the uniform one."""
    lengths, logits, kl_coef, steps = torch.arange(10.0), torch.zeros(10), 0.2, 400
    targets, one = {"b": {"max": greatest}}, {"b": {"max": 1.0}}
    ascent = Ascent(one, one)
    for step in range(steps):
        policy = logits.softmax(0)
        mean = (policy * lengths).sum()
        squares = 64 * (policy * (lengths - mean).square()).sum()
        ascent = ascent_after(ascent, targets, [{"b": Moments(64, mean.item(), squares.item())}], step / steps)
        weights, constants = mixed({"a": 1.0, "b": 0.0}, targets, ascent)
        total = weights["a"] * lengths / 3 + weights["b"] * lengths + constants["b"] - kl_coef * policy.log()
        logits += 5 * policy * (total - (policy * total).sum())  # the exact gradient of the mean total
    if met:
        assert mean.item() == pytest.approx(greatest, rel=1e-3)
        # The optimum for these weights: log-probabilities rise by the slope of the reward / kl_coef.
        slope = weights["a"] / 3 + weights["b"]
        assert (policy.log()[1:] - policy.log()[:-1]).tolist() == pytest.approx([slope / kl_coef] * 9, rel=1e-2)
    else:
        assert ascent.multipliers["b"]["max"] == LARGEST
        assert mean < 0.5


def test_training_is_for_the_mixture_and_everything_else_for_the_objective():
    reward, texts = constrained(), ["good", "a good long text", "good good"]
    logged = {}
    # 1, 4 and 2 words: mean 7/3, variance (16 + 25 + 1) / 9 / 3 = 14/9; no time has passed.
    std = (14 / 9) ** 0.5
    multiplier = 1 + DAMPING * (1 / 3) / std
    totals = reward(texts, trainer_state=at(0.0), log_metric=logged.__setitem__)
    assert totals == pytest.approx(
        [(a + multiplier * b / std) / (1 + multiplier) for a, b in ((1, 1), (1, -2), (2, 0))]
    )
    assert logged["multiplier/words/max"] == pytest.approx(multiplier)
    weights = (1 / (1 + multiplier), -multiplier / std / (1 + multiplier))
    assert (logged["weight/good"], logged["weight/words"]) == pytest.approx(weights)
    reward(texts, trainer_state=at(0.1), log_metric=logged.__setitem__)
    assert logged["multiplier/words/max"] == pytest.approx(multiplier + RATE * 0.1 * (1 / 3) / std)
    state, logged = copy.deepcopy(reward.state_dict()), {}
    with reward.frozen():
        assert reward(texts, log_metric=logged.__setitem__) == [1.0, 1.0, 2.0]
    assert not [name for name in logged if name.startswith(("multiplier", "weight"))]
    assert reward.score(texts).total.tolist() == [1.0, 1.0, 2.0]
    assert reward.score(texts).components["words"].tolist() == [1.0, 4.0, 2.0]
    assert reward.state_dict() == state


def test_a_call_outside_training_is_refused_and_one_that_fails_changes_nothing():
    reward = constrained()
    with pytest.raises(InputError, match="weight_schedule and constraints read"):
        reward(["good"])
    state = copy.deepcopy(reward.state_dict())
    with pytest.raises(InputError):
        reward(["good", 3], trainer_state=at(0.5))
    assert reward.state_dict() == state


def test_the_multipliers_are_state_that_only_the_same_constraints_take():
    reward, texts = constrained(), ["good", "a good long text"]
    for progress in (0.0, 0.1):
        reward(texts, trainer_state=at(progress))
    again = constrained()
    again.load_state_dict(copy.deepcopy(reward.state_dict()))
    assert again(texts, trainer_state=at(0.2)) == reward(texts, trainer_state=at(0.2))
    assert again.state_dict() == reward.state_dict()
    for other in (constrained(constraints={"words": {"min": 2}}), MultiClassifierReward([good, words])):
        before = other.state_dict()
        with pytest.raises(InputError, match="multipliers of the constraints"):
            other.load_state_dict(reward.state_dict())
        with pytest.raises(InputError, match="multipliers of the constraints"):
            constrained().load_state_dict(before)
        assert other.state_dict() == before


def test_a_reward_file_holds_constraints(tmp_path):
    parts = [LengthReward(max_length=3, name="short"), LengthReward()]
    reward = MultiClassifierReward(parts, {"short": 2.0}, constraints={"length": {"min": 1, "max": 4}})
    reward.save_preset(tmp_path / "reward.yaml")
    again = MultiClassifierReward.from_preset(tmp_path / "reward.yaml")
    assert again.describe() == reward.describe()
    texts = ["a b c d e", "a b"]
    assert again(texts, trainer_state=at(0.0)) == reward(texts, trainer_state=at(0.0))
    # Without a weight in the file it is 0 as well.
    text = (tmp_path / "reward.yaml").read_text().replace("  weight: 0.0\n", "")
    (tmp_path / "shorter.yaml").write_text(text)
    assert MultiClassifierReward.from_preset(tmp_path / "shorter.yaml").weights == [2.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"constraints": {"word": {"max": 2}}}, "did you mean 'words'"),
        ({"constraints": {"words": {"min": 3, "max": 2}}}, "min not above max"),
        ({"constraints": {"words": {"most": 2}}}, "min not above max"),
        ({"constraints": {"words": {}}}, "min not above max"),
        ({"constraints": {"words": {"max": "2"}}}, "min not above max"),
        ({"constraints": {"words": 2}}, "min not above max"),
        ({"constraints": {"words": {"max": float("nan")}}}, "min not above max"),
        (
            {"constraints": {"good": {"min": 1}, "words": {"max": 2}}},
            "as the objective\nFound: .*constraints on every reward",
        ),
        ({"weights": [0.0, 0.0]}, "a weight other than 0"),
        ({"weights": [1.0, 0.5]}, r"constraints of 'words' alone[\s\S]*Next: .*leave that out of 'words'; in Python"),
        ({"normalization": "zscore"}, r"constraints of 'words' alone[\s\S]*normalization"),
        ({"clip": {"words": (0, 1)}}, r"constraints of 'words' alone[\s\S]*clip"),
        ({"weight_schedule": {"words": {0: 1}}}, r"constraints of 'words' alone[\s\S]*weight_schedule"),
        ({"only_if": {"words": {"good": 1}}}, r"constraints of 'words' alone[\s\S]*only_if"),
        ({"aggregation": "minimum"}, r"constraints of 'words' alone[\s\S]*aggregation='minimum'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        constrained(**settings)


def test_settings_of_the_other_rewards_are_taken():
    reward = constrained(weights={"good": 2.0}, clip={"good": (0, 1)}, normalization={"good": "zscore"})
    assert reward.weights == [2.0, 0.0]
    assert constrained(only_if={"good": {"words": 2}}).score(["good", "good text"]).total.tolist() == [0.0, 1.0]
