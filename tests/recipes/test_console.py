from tests.recipes.test_before_after import make_metrics
from trl_rewards_plugin.recipes import console as report


def test_table_shows_every_number():
    table = report.format_table(make_metrics())
    lines = {line[:22].strip(): line[22:].split() for line in table.splitlines()}
    assert lines["reward"] == ["2.000", "3.000", "+1.000", "+0.00", "to", "+2.00", "9.000", "7.000"]
    assert lines["good"][:3] == ["2.000", "3.000", "+1.000"]
    assert lines["reward, greedy"] == ["2.000", "3.000", "+1.000"]
    assert lines["words per output"] == ["2.000", "1.500", "x", "0.75"]
    assert lines["KL to the start, nats"] == ["0.000", "1.500"]
    assert "2 held-out prompts" in table


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
    assert "none: fewer than 5 pairs, or gains that are all alike" in report.format_table(metrics).replace("\n", " ")


def test_large_numbers_stay_apart():
    metrics = make_metrics()
    metrics["before"]["reward"], metrics["after"]["reward"] = -12.3456, -1234.5678
    row = next(line for line in report.format_table(metrics).splitlines() if line.startswith("reward"))
    assert row.split()[1:3] == ["-12.3", "-1234.6"]
    assert len(report.format_table(make_metrics()).splitlines()[0]) == 79


def test_both_values_of_a_guard_have_the_same_digits():
    metrics = make_metrics()
    metrics["guard"]["output_length"] = {"before": 10.34, "after": 9.79}
    row = next(line for line in report.format_table(metrics).splitlines() if line.startswith("words per output"))
    assert row.split()[3:5] == ["10.3", "9.8"]


def test_samples_stand_side_by_side_within_the_width():
    row = {
        "source": "word " * 60,
        "before": "left " * 30,
        "after": "",
        "before_reward": 0.5,
        "after_reward": -1.25,
    }
    text = report.format_samples([row, row], width=70)
    assert max(map(len, text.splitlines())) <= 70
    assert "before (+0.50): left" in text
    assert "| after (-1.25): (nothing)" in text
    assert text.count("source: ") == 2


def test_plan_is_aligned_and_wrapped():
    plan = report.format_plan({"Model": "x", "Held out": "word " * 30}, width=60)
    assert plan.splitlines()[0] == "Model     x"
    assert all(line.startswith(" " * 10) for line in plan.splitlines()[2:])
    assert max(map(len, plan.splitlines())) <= 60
