import json

import pytest

from tests.report.folders import LOG_ROWS, write_log, write_run
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.files import COMPLETIONS
from trl_rewards_plugin.ppo.monitoring import completions
from trl_rewards_plugin.runs import checkpoints as checkpoint_folder
from trl_rewards_plugin.runs import folder as run_folder
from trl_rewards_plugin.runs import log_file
from trl_rewards_plugin.runs import read as run
from trl_rewards_plugin.runs.read import read_runs


def test_files_have_the_names_that_their_writers_give():
    assert (run.LOG, run.STATE) == (log_file.LOG, checkpoint_folder.HOST_STATE_FILE)
    assert (run.METRICS, run.CONFIG) == (run_folder.METRICS, run_folder.CONFIG)
    assert run.HELD_OUT == run_folder.COMPLETIONS == COMPLETIONS
    assert (run.ROLLOUTS, run.EVALUATIONS) == (completions.FOLDER, completions.EVAL_FOLDER)


def test_a_finished_run(tmp_path):
    (found,) = read_runs([write_run(tmp_path / "one")])
    assert (found.name, found.last_step, len(found.held_out)) == ("one", 4, 2)
    assert found.log == LOG_ROWS
    assert found.metrics["reward_gain"]["mean"] == 1.0
    assert found.settings["learning_rate"] == 1e-5
    assert [path.name for path in found.completion_files["completions"]] == [
        "completions_00001.parquet",
        "completions_00002.parquet",
    ]
    assert found.completion_files["eval_completions"] == []


def test_a_run_that_is_still_written_to(tmp_path):
    write_log(tmp_path, LOG_ROWS[:2])
    with (tmp_path / run.LOG).open("a") as file:
        file.write('{"step": 3, "objec')
    (found,) = read_runs([str(tmp_path)])
    assert found.log == LOG_ROWS[:2]
    assert (found.metrics, found.settings, found.held_out) == (None, {}, ())


def test_a_trainer_without_the_recipe_leaves_its_log_in_checkpoints(tmp_path):
    for step, rows in ((2, LOG_ROWS[:2]), (10, LOG_ROWS)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert read_runs([tmp_path])[0].log == LOG_ROWS


def test_names_are_as_long_as_tells_runs_apart(tmp_path):
    folders = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run"), write_run(tmp_path / "b" / "x")]
    assert [found.name for found in read_runs(folders[:1])] == ["run"]
    assert [found.name for found in read_runs(folders)] == ["a/run", "b/run", "b/x"]


def test_refusals(tmp_path):
    folder = write_run(tmp_path / "tiny-seed0")
    with pytest.raises(InputError, match="at least one run folder"):
        read_runs([])
    with pytest.raises(InputError, match="did you mean 'tiny-seed0'"):
        read_runs([tmp_path / "tiny-sed0"])
    with pytest.raises(InputError, match="give the output_dir of a run"):
        read_runs([tmp_path / "qqq" / "qqq"])
    with pytest.raises(InputError, match=f"the file .*metrics.json\nNext:     give a folder, such as {folder}"):
        read_runs([folder / "metrics.json"])
    with pytest.raises(InputError, match="twice"):
        read_runs([folder, folder / ".." / folder.name])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"without them\n.*has just begun"):
        read_runs([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.jsonl", "{\n", "JSON in .*log.jsonl"),
        ("log.jsonl", "3\n", "a JSON object in .*log.jsonl\nFound:    int"),
        ("metrics.json", "", "JSON in .*metrics.json"),
        ("config.yaml", "a: [", "YAML in .*config.yaml"),
        ("config.yaml", "- a", "a YAML mapping in .*config.yaml\nFound:    list"),
        ("completions.parquet", "PAR", "a parquet file as the run wrote it"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    folder = write_run(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_runs([folder])
