from dataclasses import replace

import pytest

from tests.report.folders import LOG_ROWS, REWARDS, held_out_row, write_log, write_run
from trl_rewards_plugin.report.table import headline, number_rows, reward_in_words, setting_rows, why_not_comparable
from trl_rewards_plugin.runs.read import read_runs


@pytest.fixture
def make(tmp_path):
    def make(name, **settings):
        return read_runs([write_run(tmp_path / name, **settings)])[0]

    return make


@pytest.fixture
def unfinished(tmp_path):
    (tmp_path / "unfinished").mkdir()
    write_log(tmp_path / "unfinished", LOG_ROWS[:2])
    return read_runs([tmp_path / "unfinished"])[0]


def test_numbers_by_hand(make, unfinished):
    rows = number_rows([make("one"), unfinished])
    # tests/recipes/test_before_after.py works these numbers out.
    assert rows["Reward"] == ["2.000 → 3.000", "not yet"]
    assert rows["Gain in reward"][0] == "+1.000 (95% CI 0.000 to +2.000)"
    assert rows["Gain in kind score"][0] == "0.000 (95% CI −1.000 to +1.000)"  # noqa: RUF001
    assert rows["Words per output"][0] == "2.000 → 1.500"
    assert rows["KL to the reference, nats"][0] == "1.500"
    assert rows["Seconds of training"][0] == "2"
    assert (rows["Held-out prompts"][0], rows["Responses trained on"][0], rows["Seed"][0]) == ("2", "64", "3")
    assert number_rows([unfinished]) == {}


def test_what_another_run_measured_is_a_dash(make):
    other = make("other")
    other.metrics["component_gain"] = {}
    other.metrics["guard"] = {}
    other.metrics["reward_gain"] = {"mean": None, "ci95": [None, None], "n": 0}
    rows = number_rows([make("one"), other])
    assert rows["Gain in good score"][1] == rows["Words per output"][1] == rows["Gain in reward"][1] == "\N{EN DASH}"


def test_settings_that_differ(make, unfinished):
    other = [REWARDS[0], {"name": "kind", "weight": 0.25}]
    runs = [make("one"), make("two", learning_rate=2e-5, kl_coef=0.1, made_of={"rewards": other}), unfinished]
    assert setting_rows(runs, differing=True) == {
        "learning_rate": ["1e-05", "2e-05", "not yet"],
        "reward kind: weight": ["0.5", "0.25", "not yet"],
        "kl_coef": ["default", "0.1", "not yet"],
    }
    every = setting_rows([make("three", prompt_prefix="", report_to=["a", "b"])], differing=False)
    assert every["version of trl"] == ["1.16.0"]
    assert (every["prompt_prefix"], every["report_to"]) == (["(empty)"], ["a, b"])
    assert setting_rows([make("four"), make("five"), unfinished], differing=True) == {}


def test_gains_that_cannot_be_compared_say_why(make, unfinished):
    one = make("one")
    assert why_not_comparable([one, make("two"), unfinished]) is None
    assert "different rewards" in why_not_comparable([one, make("three", made_of={"rewards": REWARDS[:1]})])
    other = [held_out_row() | {"prompt": "Another."}]
    assert "different held-out prompts" in why_not_comparable([one, make("four", held_out=other)])


@pytest.mark.parametrize(
    ("one", "other", "are_different"),
    [
        ("mine.py:polite", "mine.polite", False),
        ("mine.py:polite", "hers.polite", True),
        ("one/rewards.py:score", "two/rewards.py:score", False),  # a folder that moved, or another function
        ("one.rewards.score", "two.rewards.score", True),
        ("length", "trl_rewards_plugin.rewards.text_rewards.LengthReward", False),
        ("length", "repetition", True),
        ("length", None, True),
    ],
)
def test_functions_are_compared_as_far_as_they_are_recorded(make, one, other, are_different):
    parts = [{"name": "polite", "weight": 1.0, **({"function": name} if name else {})} for name in (one, other)]
    runs = [make(f"run{place}", made_of={"rewards": [part]}) for place, part in enumerate(parts)]
    assert (why_not_comparable(runs) is not None) == are_different


def test_what_the_reward_is_in_words(make, unfinished):
    judge = {"name": "good", "weight": 1.0, "model": "owner/judge", "score_type": "probability"}
    assert reward_in_words(make("one", made_of={"rewards": [judge]})) == (
        "1 x good, as classifiers (in probabilities, 0 to 1) score each output; higher is better"
    )
    parts = [judge, {**judge, "score_type": "logit"}, {"name": "far", "weight": 1.0, "function": "remote"}]
    parts += [{"name": "rouge", "weight": 1.0, "metric": "rouge"}, *REWARDS[1:]]
    several = make("several", made_of={"rewards": [*parts, {"name": "both", "weight": 1.0}]})
    several.log[0]["rewards/both/inner/mean"] = 0.5
    scales = "in probabilities, 0 to 1; logits, raw scores without a fixed range"
    judges = f"classifiers ({scales}), servers, metrics, functions and combinations of rewards"
    assert f", as {judges} score each output" in reward_in_words(several)
    assert "minimum of 1 x good, 0.5 x kind" in reward_in_words(make("two", made_of={"aggregation": "minimum"}))
    assert reward_in_words(unfinished) is None


def test_a_run_in_a_sentence(make, unfinished):
    assert headline(make("one")) == (
        "Reward 2.000 → 3.000 on 2 held-out prompts: a gain of +1.000 (95% CI 0.000 to +2.000); "
        "KL 1.500 nats to the reference."
    )
    assert headline(unfinished).startswith("Not finished: 2 rollouts so far")  # of a run of an earlier version
    planned = replace(unfinished, settings={"made_of": {"rollouts": 16}})
    assert headline(planned).startswith("Not finished: 2 of 16 rollouts; numbers")
    without = make("two")
    without.metrics.update(kl=None, warnings=["Nearly all are the same."])
    assert "KL" not in headline(without)
    assert headline(without).endswith(". Nearly all are the same.")
