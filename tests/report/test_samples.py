from tests.report.folders import held_out_row, write_run
from trl_rewards_plugin.ppo.monitoring.completions import write_completions
from trl_rewards_plugin.report import samples
from trl_rewards_plugin.report.samples import missing_outputs, pairs_of, samples_of, shown_text, step_of
from trl_rewards_plugin.runs.layout import EVALUATIONS, ROLLOUTS
from trl_rewards_plugin.runs.read import Run, read_runs


def test_samples_are_those_of_rollouts_by_step(tmp_path):
    (run,) = read_runs([write_run(tmp_path)])
    found = samples_of(run)
    assert [(sample.step, sample.held_out, sample.output) for sample in found] == [
        (1, False, "first of 1"),
        (1, False, "second"),
        (2, False, "first of 2"),
        (2, False, "second"),
    ]
    assert found[0].scores == {"reward": 1.0}  # the total, which the log has as "both"
    assert found[0].reward == 1.0


def test_pairs_have_both_outputs_with_their_scores(tmp_path):
    (run,) = read_runs([write_run(tmp_path)])
    pairs = pairs_of(run)
    assert list(pairs) == ["Best gain (+2.00)", "Median gain (+1.00)"]
    prompt, (before, after) = pairs["Best gain (+2.00)"]
    assert (prompt, before.output, after.output) == ("Say it.", "before an output", "after an output")
    assert after.scores == {"reward": 2.5, "good": 2.0, "kind": 1.0}
    assert pairs_of(Run("two", tmp_path, [])) == {}


def test_evaluations_are_held_out_and_what_is_no_score_is_none(tmp_path):
    conversation = [{"role": "user", "content": "Hi"}]
    table = {"prompt": [conversation], "completion": [None], "good": [float("nan")], "note": ["text"], "flag": [True]}
    write_completions(tmp_path / EVALUATIONS, table, 7)
    (sample,) = samples_of(Run("one", tmp_path, []))
    assert (sample.held_out, sample.step) == (True, 7)
    assert (sample.prompt, sample.output) == ("user: Hi", "")
    assert dict(sample.scores) == {"good": None}
    assert sample.reward is None


def test_a_long_run_shows_some_of_each_of_some_steps(tmp_path):
    for step in range(1, 31):
        write_completions(
            tmp_path / ROLLOUTS, {"prompt": ["p"] * 20, "completion": list("abcdefghijklmnopqrst")}, step
        )
    held_out = [held_out_row(str(row)) for row in range(100)]
    found = samples_of(Run("one", tmp_path, [{"step": 30}], held_out=held_out))
    steps = sorted({sample.step for sample in found if not sample.held_out})
    assert (len(steps), steps[0], steps[-1]) == (samples.STEPS_SHOWN, 1, 30)
    assert sum(sample.step == 1 for sample in found) == samples.ROWS_SHOWN
    # Equal gains: one of them is the best, one the median, one the second best.
    assert len(pairs_of(Run("one", tmp_path, [], held_out=held_out))) == 3 + samples.HELD_OUT_SHOWN
    assert "".join(sample.output for sample in found if sample.step == 1)[0::7] == "at"


def test_runs_without_outputs_are_named(tmp_path):
    with_outputs = read_runs([write_run(tmp_path / "one")])[0]
    assert missing_outputs([with_outputs, Run("two", tmp_path, [])]) == ["two"]


def test_texts_keep_lines_and_lose_what_html_forbids():
    assert (
        shown_text("a\nb\tc\x00\x1b\x85\r\nd")
        == "a\nb\tc\N{REPLACEMENT CHARACTER}" + "\N{REPLACEMENT CHARACTER}" * 2 + "\nd"
    )
    assert shown_text("x" * 1503) == "x" * 1500 + " ... (3 more characters)"
    assert shown_text("\u05e9\u05dc\u05d5\u05dd") == "\u05e9\u05dc\u05d5\u05dd"


def test_steps_are_read_from_names(tmp_path):
    assert step_of(tmp_path / "completions_00012.parquet") == 12
    assert step_of(tmp_path / "completions_.parquet") == 0


def test_a_prompt_that_is_a_list_of_something_else_is_shown_as_it_is(tmp_path):
    write_completions(tmp_path / ROLLOUTS, {"prompt": [[0.5]], "completion": ["x"], "good": [1.0]}, 1)
    assert samples_of(Run("one", tmp_path, []))[0].prompt == "[0.5]"
