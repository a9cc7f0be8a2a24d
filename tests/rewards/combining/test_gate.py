"""Gates by hand, and in a combination, a reward file and the log."""

import pytest
import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import LengthReward, MultiClassifierReward
from trl_rewards_plugin.rewards.combining.combination import Combination

NAN = float("nan")


def passes(raw, gate):
    """Which texts pass the gate of a reward called style."""
    combination = Combination.checked([*raw, "style"], None, "weighted_sum", only_if={"style": gate})
    return combination.passing(raw)["style"]


def test_a_text_passes_where_every_gating_score_reaches_its_threshold():
    raw = {"grammar": torch.tensor([0.0, 0.5, -0.1, 2.0, NAN]), "length": torch.tensor([1.0, 0.4, 1.0, NAN, 1.0])}
    assert passes(raw, {"grammar": 0.0}).tolist() == [True, True, False, True, False]
    assert passes(raw, {"grammar": 0.0, "length": 0.5}).tolist() == [True, False, False, False, False]


def test_behind_the_gate_is_the_floor_and_a_missing_score_stays_missing():
    style = torch.tensor([3.0, 3.0, NAN, NAN])
    gate = {"only_if": {"style": {"grammar": 0.0}}, "floor": {"style": -1.0}}
    combination = Combination.checked(["style", "grammar"], [1.0, 0.0], "weighted_mean", **gate)
    scores = torch.stack([style, torch.zeros(4)], dim=1)
    passing = {"style": torch.tensor([True, False, True, False])}
    total = combination.total(scores, {}, [1.0, 0.0], passing, ["a", "b", "c", "d"])
    torch.testing.assert_close(total, torch.tensor([3.0, -1.0, NAN, NAN]), equal_nan=True)


def style(completions, **kwargs):
    return [2.0 if "!" in text else 1.0 for text in completions]


def grammar(completions, **kwargs):
    return [None if text == "?" else -1.0 if "is are" in text else 1.0 for text in completions]


TEXTS = ["it is good!", "it is are good!", "it is good", "?"]


def test_a_gated_reward_counts_only_where_the_other_one_reaches_its_threshold():
    weights = {"style": 0.5, "grammar": 1.0}
    reward = MultiClassifierReward([grammar, style], weights, only_if={"style": {"grammar": 0.0}})
    # 1 + 0.5 * 2, -1 + nothing, 1 + 0.5 * 1, and no grammar score is no pass.
    scores = reward.score(TEXTS)
    assert scores.total.tolist() == [2.0, -1.0, 1.5, 0.0]
    assert scores.components["style"].tolist() == [2.0, 2.0, 1.0, 1.0]  # as the reward gave them


def test_behind_the_gate_is_the_floor_before_the_weight():
    gate = {"only_if": {"style": {"grammar": 0.0}}, "floor": {"style": -4.0}}
    reward = MultiClassifierReward([grammar, style], [1.0, 0.5], **gate)
    assert reward.score(TEXTS).total.tolist() == [2.0, -3.0, 1.5, -2.0]


def test_the_gate_reads_raw_scores_and_the_floor_takes_the_place_of_normalised_ones():
    reward = MultiClassifierReward(
        [grammar, style],
        normalization={"grammar": {"mean": 100.0, "scale": 1.0}, "style": {"mean": 1.0, "scale": 0.5}},
        only_if={"style": {"grammar": 0.0}},
        floor={"style": -1.0},
    )
    assert reward.score(TEXTS[:3]).total.tolist() == [-99.0 + 2.0, -101.0 - 1.0, -99.0 + 0.0]


def test_the_share_that_passes_is_logged():
    logged = {}
    reward = MultiClassifierReward([grammar, style], only_if={"style": {"grammar": 0.0}})
    reward(TEXTS, log_metric=lambda name, value: logged.setdefault(name, value))
    assert logged["gate/style/passed"] == 0.5


def test_a_reward_file_holds_gate_and_floor(tmp_path):
    parts = [LengthReward(max_length=3), LengthReward(min_length=2, name="long")]
    reward = MultiClassifierReward(parts, only_if={"long": {"length": 1.0}}, floor={"long": -1.0})
    reward.save_preset(tmp_path / "reward.yaml")
    again = MultiClassifierReward.from_preset(tmp_path / "reward.yaml")
    assert again.describe() == reward.describe()
    assert again.score(["a b c d e", "a b"]).total.tolist() == reward.score(["a b c d e", "a b"]).total.tolist()
    assert again.score(["a b"]).total.item() == 2.0


@pytest.mark.parametrize("named", ["", "\n  name: length"])
@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            "{lenght: 1.0}",
            r"reward\.yaml, rewards\[1\] [\s\S]*'lenght'\nNext:     did you mean 'length'\? use the names",
        ),
        ("{long: 1.0}", r"reward\.yaml, rewards\[1\] to name another reward\nFound:    'long', that reward itself"),
        ("length", r"reward\.yaml, rewards\[1\]' as {reward: minimum score}"),
    ],
)
def test_a_gate_that_does_not_fit_is_found_in_its_file(tmp_path, gate, message, named):
    entries = f"- function: length{named}\n- {{function: length, name: long, only_if: {gate}}}\n"
    (tmp_path / "reward.yaml").write_text(f"rewards:\n{entries}", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        MultiClassifierReward.from_preset(tmp_path / "reward.yaml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"only_if": {"style": {"gramar": 0.0}}}, "did you mean 'grammar'"),
        ({"only_if": {"style": {"style": 0.0}}}, "another reward\nFound:    'style', that reward itself"),
        ({"only_if": {"styl": {"grammar": 0.0}}}, "did you mean 'style'"),
        ({"only_if": {"style": {}}}, "minimum score"),
        ({"only_if": {"style": {"grammar": "high"}}}, "minimum score"),
        ({"only_if": {"style": {"grammar": 0.0}}, "floor": {"style": float("nan")}}, "finite number"),
        ({"floor": {"style": 0.0}}, "no gate"),
        ({"weights": {"grammar": 1.0}}, "a weight for 'style'"),
        ({"weights": {"gramar": 1.0, "style": 1.0}}, "did you mean 'grammar'\\? use the names of the rewards"),
        ({"clip": {"style": 3}}, r"for example \[-3, 3\]$"),
        ({"weights": {"grammar": 1.0, "style": 1.0, "tone": 1.0}}, "'tone'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        MultiClassifierReward([grammar, style], **settings)
