import pytest

from tests.recipes.test_before_after import make_metrics
from trl_rewards_plugin.recipes import console as report


def test_table_shows_every_number():
    table = report.format_table(make_metrics())
    lines = {line[:22].strip(): line[22:].split() for line in table.splitlines()}
    assert lines["reward"] == ["2.000", "3.000", "+1.000", "+0.00", "to", "+2.00", "9.000", "7.000"]
    assert lines["good"][:3] == ["2.000", "3.000", "+1.000"]
    text = " ".join(table.split())
    assert "words per output x 0.75" in text
    assert "distinct greedy outputs x 1.00" in text
    assert "KL to the reference 1.500 nats" in text
    assert "2 held-out prompts" in text
    assert "Reward, greedy: 2.000 -> 3.000." in text
    assert text.endswith("The reward is not distinguishable from before: the interval of its gain includes 0.")


@pytest.mark.parametrize(
    ("ends", "said"), [([0.1, 0.2], "better than"), ([-0.2, -0.1], "worse than"), ([-0.1, 0.1], "includes 0")]
)
def test_the_verdict_is_what_the_interval_shows(ends, said):
    assert said in report.verdict({"ci95": ends, "n": 9})
    assert report.verdict({"ci95": [None, None], "n": 1}).endswith(": fewer than 5 pairs")
    assert report.verdict({"ci95": [None, None], "n": 9, "mean": 0.0}).endswith(": all gains are equal")


def test_cut_prompts_are_told_below_the_table():
    metrics = make_metrics()
    assert "cut to" not in report.format_table(metrics)
    metrics["prompt_cuts"] = {"prompts": 1000, "cut": 930, "limit": 128, "kept": 0.23}
    told = "930 of 1,000 prompts (93%) are cut to 128 tokens; the model reads 23% of a cut prompt (median)."
    assert told in " ".join(report.format_table(metrics).split())


def test_what_was_counted_is_one_line_each():
    lines = report.format_counts({"end in a full stop": {"before": 0.27, "after": 0.974}}, 96).splitlines()
    assert lines[1] == "  27% ->  97%  end in a full stop"


def test_table_has_a_dash_for_what_was_not_scored():
    metrics = make_metrics()
    metrics["before"]["kind"] = metrics["before_greedy"]["kind"] = None
    metrics["component_gain"]["kind"] = {"mean": None, "ci95": [None, None], "n": 0}
    metrics["kl"] = None
    table = report.format_table(metrics)
    assert "None" not in table
    assert "KL" not in table
    (kind,) = (line for line in table.splitlines() if line.startswith("kind  "))
    assert kind.split() == ["kind", "-", "0.000", "-", "none", "1.000", "1.000"]


def test_the_table_says_why_a_gain_has_no_interval():
    assert "fewer than" not in report.format_table(make_metrics())
    metrics = make_metrics()
    metrics["reward_gain"]["ci95"] = [None, None]
    assert "(none: fewer than 5 pairs)" in " ".join(report.format_table(metrics).split())
    metrics["reward_gain"]["n"] = 5
    assert "(none: all gains are equal)" in " ".join(report.format_table(metrics).split())


def test_large_numbers_stay_apart():
    metrics = make_metrics()
    metrics["before"]["reward"], metrics["after"]["reward"] = -12.3456, -1234.5678
    row = next(line for line in report.format_table(metrics).splitlines() if line.startswith("reward"))
    assert row.split()[1:3] == ["-12.3", "-1234.6"]
    assert len(report.format_table(make_metrics()).splitlines()[0]) == 79


def output_row(place):
    rewards = {"before_greedy": 0.5, "after_greedy": -1.25, "before": 0.0, "after": 1.0 + place}
    texts = {"before_greedy": "left " * 30, "after_greedy": "", "before": "drawn", "after": "drawn too"}
    return {"source": "word " * 60, **texts, **{f"{side}_reward": reward for side, reward in rewards.items()}}


def test_samples_stand_side_by_side_within_the_width():
    text = report.format_outputs([output_row(place) for place in range(2)], width=70)
    assert max(map(len, text.splitlines())) <= 70
    assert "before (+0.50): left" in text
    assert "| after (-1.25): (nothing)" in text
    assert text.count("source: ") == 2
    assert text.startswith(
        "Greedy outputs for held-out prompts, by gain (reward in brackets):\n\nSmallest loss (-1.75):\n"
    )


def test_greedy_outputs_that_are_nearly_all_the_same_are_said_first_and_the_sampled_ones_are_shown():
    text = report.format_outputs([output_row(place) for place in range(3)], ["Nearly all are the same."], width=70)
    assert text.startswith("Nearly all are the same.\n\nSampled outputs (the greedy ones are nearly all alike) for")
    assert "before (+0.00): drawn" in text
    assert "Best gain (+3.00)" in text
    assert "left" not in text


def test_of_a_long_prompt_both_ends_are_shown():
    assert report.shortened("a\nb") == "a b"
    assert report.shortened("start " + "x" * 500 + " end", most=20) == "start xxxx [...] xxxxxx end"


def test_plan_is_aligned_and_wrapped():
    plan = report.format_plan({"Model": "x", "Held out": "word " * 30}, width=60)
    assert plan.splitlines()[0] == "Model     x"
    assert all(line.startswith(" " * 10) for line in plan.splitlines()[2:])
    assert max(map(len, plan.splitlines())) <= 60
