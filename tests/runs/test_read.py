import json

import pytest

from tests.report.folders import LOG_ROWS, held_out_row, metrics, write_log, write_run
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import LOG
from trl_rewards_plugin.runs.read import read_finished_run, read_runs
from trl_rewards_plugin.runs.writing import write_rows


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
    with (tmp_path / LOG).open("a") as file:
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
    with pytest.raises(InputError, match=r"did you mean '.*/tiny-seed0'"):
        read_runs([tmp_path / "tiny-sed0"])
    with pytest.raises(InputError, match="give the output_dir of a run"):
        read_runs([tmp_path / "qqq" / "qqq"])
    with pytest.raises(InputError, match=f"the file .*metrics.json\nNext:     give its folder: {folder}"):
        read_runs([folder / "metrics.json"])
    (tmp_path / "news.csv").touch()
    with pytest.raises(InputError, match=r"the file .*news.csv\nNext:     give the output_dir of a run"):
        read_runs([tmp_path / "news.csv"])
    with pytest.raises(InputError, match="twice"):
        read_runs([folder, folder / ".." / folder.name])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"without them\n.*has just begun"):
        read_runs([tmp_path / "empty"])


DEEP = 100_000
METRICS = json.loads(metrics())
ALIASES = "a: &a [1]\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(9))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.jsonl", "{\n", "JSON in .*log.jsonl"),
        ("log.jsonl", "3\n", "log.jsonl as the run wrote it\nFound:    it is 3"),
        ("log.jsonl", '{"step": "one"}\n', "log.jsonl as the run wrote it\nFound:    step is 'one'"),
        ("log.jsonl", '{"step": Infinity}\n', "step is inf"),
        ("log.jsonl", '{"objective/kl": [1]}\n', r"objective/kl is \[1\]"),
        ("log.jsonl", '{"a": ' + "[" * DEEP + "\n", "JSON in .*log.jsonl\nFound:    .*recursion"),
        ("log.jsonl", b"\xff\xfe\n", "log.jsonl as the run wrote it\nFound:    'utf-8' codec"),
        ("metrics.json", "", "JSON in .*metrics.json"),
        ("metrics.json", "{}", "metrics.json as the run wrote it\nFound:    it lacks before, after, "),
        ("metrics.json", "[]", r"metrics.json as the run wrote it\nFound:    it is \[\]"),
        ("metrics.json", b"PK\x03\x04\x9c", "metrics.json as the run wrote it\nFound:    'utf-8' codec"),
        ("metrics.json", metrics()[:100], "JSON in .*metrics.json"),
        ("metrics.json", json.dumps(METRICS | {"seed": None}), "seed is None"),
        ("metrics.json", json.dumps(METRICS | {"kl": "1.5"}), "kl is '1.5'"),
        ("metrics.json", json.dumps(METRICS | {"episodes": True}), "episodes is True"),
        ("metrics.json", json.dumps(METRICS | {"after": {"reward": 1.0}}), r"after with \['reward'\] instead of"),
        ("metrics.json", json.dumps(METRICS | {"reward_gain": {"mean": 1.0, "ci95": [0.0], "n": 2}}), "ci95 is"),
        ("metrics.json", json.dumps(METRICS | {"episodes": 10**400}), "episodes is 1000"),
        ("config.yaml", "a: [", "YAML in .*config.yaml"),
        (
            "config.yaml",
            "a: 1\n\tb: 2",
            r"YAML in line 2, column 1: .*'\\t'.*\nNext:     restore the file from the run",
        ),
        ("config.yaml", b"a: \xff", r"YAML in .*config.yaml\n.*utf-8.*\nNext:     restore the file from the run"),
        ("config.yaml", "- a", r"config.yaml as the run wrote it\nFound:    it is \['a'\]"),
        ("config.yaml", "a: " + "[" * DEEP, "YAML in .*config.yaml\nFound:    .*levels of nesting"),
        (
            "config.yaml",
            ALIASES,
            r"YAML in .*config.yaml\nFound:    invalid YAML: references that unfold to [\d,]+ values",
        ),
        ("config.yaml", "a: &a [*a]", "references that unfold"),
        ("config.yaml", "a: !!timestamp x", "YAML in .*config.yaml"),
        ("config.yaml", "1: 2", "config.yaml as the run wrote it\nFound:    it is {1: 2}"),
        ("config.yaml", "model: [a]", r"model is \['a'\]"),
        ("config.yaml", "made_of: 3", "made_of is 3"),
        ("config.yaml", "made_of: {rewards: [{name: good}]}", r"rewards\[0\] lacks weight"),
        ("completions.parquet", "PAR", "a complete parquet file .*completions.parquet"),
        ("completions.parquet", b"PAR1" + bytes(60) + b"PAR1", "a complete parquet file .*completions.parquet"),
    ],
)
@pytest.mark.parametrize("read", [read_runs, lambda folders: read_finished_run(folders[0])])
def test_damaged_files_are_named(tmp_path, read, name, content, message):
    folder = write_run(tmp_path)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if name == "log.jsonl" and read is not read_runs:
        assert read([folder]).log == ()  # no card needs it
        return
    with pytest.raises(InputError, match=message):
        read([folder])


@pytest.mark.parametrize("column", ["source", "after", "before_reward"])
def test_held_out_rows_have_the_columns_that_are_shown(tmp_path, column):
    row = held_out_row()
    folder = write_run(tmp_path, held_out=[{**row, column: [1]}])
    with pytest.raises(InputError, match=rf"completions.parquet as the run wrote it\nFound:    {column} is \[1\]"):
        read_runs([folder])
    write_rows(folder / "completions.parquet", [{name: value for name, value in row.items() if name != column}])
    with pytest.raises(InputError, match=f"it lacks {column}"):
        read_runs([folder])


def test_a_score_before_has_one_after(tmp_path):
    row = held_out_row()
    del row["after_good"]
    with pytest.raises(InputError, match="it lacks after_good"):
        read_runs([write_run(tmp_path, held_out=[row])])


def test_an_unfinished_run_is_no_finished_one(tmp_path):
    write_log(tmp_path)
    with pytest.raises(InputError, match=r"without config.yaml, .*\n.*this run has not finished"):
        read_finished_run(tmp_path)
    with pytest.raises(InputError, match="which is not a folder"):
        read_finished_run(tmp_path / "missing")
