import csv
import io
import itertools
import json
import os
import random
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml

from tests.rewards.judges import TEXTS, judge, sentiment
from tests.runs.test_lock import Holder
from trl_rewards_plugin.cli.main import main
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import MultiClassifierReward
from trl_rewards_plugin.rewards.files.file_content import preset_content
from trl_rewards_plugin.rewards.inference import devices
from trl_rewards_plugin.scoring import score_job
from trl_rewards_plugin.scoring.score_job import ScoreSettings, score_file

CLOSE = {"rel": 0, "abs": 1e-5}
HARD = [*TEXTS, 'a "quoted", text', "two\nlines", "a\rb", "=1+1", " spaces ", "NaN", "null"]


@pytest.fixture(scope="module")
def reward_file(tmp_path_factory):
    """The path of a reward file with two judges."""
    path = tmp_path_factory.mktemp("reward") / "pair.yaml"
    entries = [
        {"model": str(judge()), "label": "good", "name": "quality", "weight": 1.0},
        {"model": str(sentiment()), "label": "neutral", "name": "neutrality", "weight": 0.5},
    ]
    path.write_text(yaml.safe_dump({"rewards": entries}))
    return str(path)


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr(score_job, "SLICE", 4)


def expected(reward_file, texts):
    return MultiClassifierReward.from_preset(reward_file).score(texts)


def write(path, texts, **columns):
    columns = {"text": texts, **columns}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(columns))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(f"{text}\n" for text in texts))
    return str(path)


def read(path):
    """Rows of an output, numbers as floats."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    elif path.suffix == ".csv":
        rows = list(csv.DictReader(path.read_bytes().decode().splitlines(keepends=True)))
    else:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    return [{k: float(v) if k in ("total", "quality", "neutrality") else v for k, v in row.items()} for row in rows]


def run(source, reward_file, output, **further):
    return score_file(ScoreSettings(input=str(source), reward=reward_file, output=str(output), **further))


# --- formats ---


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("source", [".jsonl", ".csv", ".parquet"])
def test_every_format_comes_in_and_goes_out(tmp_path, reward_file, small_slices, source, ending):
    path = write(tmp_path / f"in{source}", HARD, number=list(range(len(HARD))))
    summary = run(path, reward_file, tmp_path / f"out{ending}", missing="empty")  # a CSV cannot tell '' from null
    rows, scores = read(tmp_path / f"out{ending}"), expected(reward_file, HARD)
    assert list(rows[0]) == ["text", "number", "total", "quality", "neutrality"]
    assert [row["text"] for row in rows] == HARD
    assert [int(row["number"]) for row in rows] == list(range(len(HARD)))
    assert [row["total"] for row in rows] == pytest.approx(scores.total.tolist(), **CLOSE)
    for name, values in scores.components.items():
        assert [row[name] for row in rows] == pytest.approx(values.tolist(), **CLOSE)
        assert summary.means[name] == pytest.approx(values.mean().item(), **CLOSE)
        assert summary.stds[name] == pytest.approx(values.std().item(), **CLOSE)
    assert (summary.rows, summary.earlier) == (len(HARD), 0)
    assert sorted(os.listdir(tmp_path)) == sorted([f"in{source}", f"out{ending}"])


def test_lines_are_texts_blank_ones_too(tmp_path, reward_file):
    (tmp_path / "in.txt").write_bytes("hello\r\n\nnaïve\nlast".encode())
    run(tmp_path / "in.txt", reward_file, tmp_path / "out.jsonl")
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == ["hello", "", "naïve", "last"]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_lone_surrogates_and_nested_values_are_written(tmp_path, reward_file, ending):
    (tmp_path / "in.jsonl").write_text('{"text": "a\\ud800", "tags": ["x", "y"]}\n{"text": "b", "tags": []}\n')
    for _ in range(2):
        run(tmp_path / "in.jsonl", reward_file, tmp_path / f"out{ending}")
    row = read(tmp_path / f"out{ending}")[0]
    assert row["text"] == {".jsonl": "a\ud800"}.get(ending, "a\ufffd")
    assert row["tags"] == ('["x", "y"]' if ending == ".csv" else ["x", "y"])


def test_columns_that_come_and_go_fit_in_all_but_csv(tmp_path, reward_file, small_slices):
    lines = [{"text": text, **({"more": 1.5} if index > 5 else {"less": "x"})} for index, text in enumerate(TEXTS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    run(tmp_path / "in.jsonl", reward_file, tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table["more"].to_pylist() == [None] * 6 + [1.5] * 2
    assert table["less"].to_pylist() == ["x"] * 6 + [None] * 2
    with pytest.raises(InputError, match="one with more"):
        run(tmp_path / "in.jsonl", reward_file, tmp_path / "out.csv")


def test_prompts_and_columns_reach_the_rewards(tmp_path):
    path = tmp_path / "pair.yaml"
    entries = [{"model": str(judge()), "label": "good", "name": "faithful", "pair": "prompt"}]
    path.write_text(yaml.safe_dump({"rewards": entries}))
    source = write(tmp_path / "in.jsonl", ["yes", "no"], question=["why?", "who?"])
    with pytest.raises(InputError, match="--prompt_column"):
        run(source, str(path), tmp_path / "out.jsonl")
    run(source, str(path), tmp_path / "out.jsonl", prompt_column="question")
    scores = MultiClassifierReward.from_preset(path).score(["yes", "no"], ["why?", "who?"])
    found = [row["faithful"] for row in read(tmp_path / "out.jsonl")]
    assert found == pytest.approx(scores.total.tolist(), **CLOSE)


def test_a_column_that_only_later_rows_have_reaches_the_reward_that_reads_it(tmp_path):
    (tmp_path / "reward.yaml").write_text("rewards: [{function: similarity, reference: summary}]")
    rows = [{"text": "a cat"}, {"text": "a cat", "summary": "a cat"}, {"text": "a cat", "summary": "a dog"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(tmp_path / "in.jsonl", str(tmp_path / "reward.yaml"), tmp_path / "out.jsonl")
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["total"] for line in written] == [None, 1.0, 0.5]


# --- resuming ---


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_job_resumes_wherever_it_was_interrupted(tmp_path, reward_file, small_slices, ending):
    texts = ["two\nlines", "naïve 🙂", *TEXTS[:4]]
    source, whole = write(tmp_path / "in.jsonl", texts), tmp_path / f"whole{ending}"
    run(source, reward_file, whole)
    content = whole.read_bytes()
    torn = tmp_path / f"torn{ending}"
    found = set()
    for length in range(content.index(b"\n") + 1, len(content) + 1, 53):
        torn.write_bytes(content[:length])
        summary = run(source, reward_file, torn)
        assert [row["text"] for row in read(torn)] == texts
        assert [row["total"] for row in read(torn)] == pytest.approx([row["total"] for row in read(whole)], **CLOSE)
        assert summary.rows == 6
        assert summary.means["total"] == pytest.approx(expected(reward_file, texts).total.mean().item(), **CLOSE)
        found.add(summary.earlier)
    assert found >= {1, 2, 3, 4, 5}


def test_a_parquet_job_resumes_from_its_parts(tmp_path, reward_file, small_slices, monkeypatch):
    source, output = write(tmp_path / "in.jsonl", HARD), tmp_path / "out.parquet"

    calls = itertools.count()
    score = score_job._Job._score

    def interrupted(self, rows):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return score(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(score_job._Job, "_score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source, reward_file, output)
    assert not output.exists()
    assert len(os.listdir(tmp_path / "out.parquet.parts")) == 2
    assert run(source, reward_file, output).earlier == 8
    assert [row["text"] for row in read(output)] == HARD
    assert not (tmp_path / "out.parquet.parts").exists()
    # A job that ended after it wrote the file and before it removed the parts.
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(output).slice(8), parts / f"{8:012d}.parquet")
    assert run(source, reward_file, output).earlier == len(HARD)
    assert [row["text"] for row in read(output)] == HARD


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_more_texts_are_added_to_a_finished_file(tmp_path, reward_file, ending):
    run(write(tmp_path / "in.jsonl", TEXTS[:3]), reward_file, tmp_path / f"out{ending}")
    summary = run(write(tmp_path / "in.jsonl", TEXTS), reward_file, tmp_path / f"out{ending}")
    assert (summary.rows, summary.earlier) == (8, 3)
    rows = read(tmp_path / f"out{ending}")
    assert [row["text"] for row in rows] == TEXTS
    assert [row["total"] for row in rows] == pytest.approx(expected(reward_file, TEXTS).total.tolist(), **CLOSE)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_no_texts_of_standard_input_make_an_empty_file(tmp_path, reward_file, monkeypatch, ending):
    for _ in range(2):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        summary = run("-", reward_file, tmp_path / f"out{ending}")
        assert (summary.rows, summary.means["total"]) == (0, None)
    assert read(tmp_path / f"out{ending}") == []


@pytest.mark.parametrize(("earlier", "scored", "written"), [(0, 0, 0), (0, 1, 4), (1, 0, 1), (1, 1, 1), (1, 2, 5)])
def test_an_interrupted_job_says_how_far_it_is(
    tmp_path, reward_file, small_slices, monkeypatch, capsys, earlier, scored, written
):
    output, calls = tmp_path / "out.jsonl", itertools.count()
    if earlier:
        run(write(tmp_path / "in.jsonl", TEXTS[:earlier]), reward_file, output)
    score = score_job._Job._score

    def interrupted(self, rows):
        if next(calls) == scored:
            raise KeyboardInterrupt
        return score(self, rows)

    monkeypatch.setattr(score_job._Job, "_score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(write(tmp_path / "in.jsonl", TEXTS), reward_file, output)
    assert (len(read(output)) if output.exists() else 0) == written
    said = f"{written} of {len(TEXTS)} texts are in {output}; rerun the command to continue"
    assert (said in capsys.readouterr().err) is (written > 0)


def test_half_a_row_of_a_job_that_is_running_is_refused_by_the_name_of_its_writer(tmp_path, reward_file):
    source, output = write(tmp_path / "in.jsonl", TEXTS), tmp_path / "out.jsonl"
    output.write_text('{"text": "The cat')
    with Holder("writing_file", output) as holder, pytest.raises(InputError, match=f"process {holder.process.pid}"):
        run(source, reward_file, output)
    with pytest.raises(InputError, match="not one whole row"):
        run(source, reward_file, output)


def test_an_output_of_another_job_is_refused_and_left_alone(tmp_path, reward_file):
    source, output = write(tmp_path / "in.jsonl", TEXTS), tmp_path / "out.jsonl"
    others = {
        "other texts": '{"text": "else", "total": 1, "quality": 1, "neutrality": 1}\n',
        "other columns": '{"text": "The cat sleeps."}\n',
        "another reward": '{"text": "The cat sleeps.", "total": 9, "quality": 9, "neutrality": 9}\n',
        "no score here": '{"text": "The cat sleeps.", "total": null, "quality": 9, "neutrality": 9}\n',
        "no JSON": "The cat sleeps.\n",
        "no object": "[1]\n",
        "no whole row": '{"text": "The cat',
    }
    for content in others.values():
        output.write_text(content)
        with pytest.raises(InputError, match=r"out\.jsonl"):
            run(source, reward_file, output)
        assert output.read_text() == content
    run(write(tmp_path / "more.jsonl", [*TEXTS, "more"]), reward_file, tmp_path / "more-out.jsonl")
    with pytest.raises(InputError, match="row 9"):
        run(source, reward_file, tmp_path / "more-out.jsonl")


@pytest.mark.parametrize("content", ['text\n"a" b,1\n"c"', "text,total,quality,neutrality\na,b\n", "text"])
def test_a_csv_of_another_make_is_refused_and_left_alone(tmp_path, reward_file, content):
    output = tmp_path / "out.csv"
    output.write_text(content)
    with pytest.raises(InputError, match=r"out\.csv"):
        run(write(tmp_path / "in.jsonl", TEXTS), reward_file, output)
    assert output.read_text() == content


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", '{"text": "a"}\n{"text": null}\n', "none in row 2"),
        ("in.jsonl", '{"text": "a"}\n{"txt": "b"}\n', "did you mean 'txt'.*--text_column txt"),
        ("in.jsonl", "\n", "rows in .*only a header"),
        ("in.jsonl", '{"prompt": "a", "n": 1}\n', "--text_column prompt"),
        ("in.jsonl", '{"prompt": "a", "output": "b"}\n', "--text_column output"),
        ("in.jsonl", '{"text": "a"\n', "line 1 of"),
        ("in.jsonl", '"a"\n', "str in line 1"),
        ("in.jsonl", '{"text": "a", "total": 1}\n', r"total in row 1.*table\[\['text'\]\]"),
        ("in.csv", "text,b\na\n", "1 in line 2"),
        ("in.csv", "text,text\na,b\n", "rename one"),
        ("in.csv", 'text\n"a" b\n', "line 2"),
        ("in.parquet", "no parquet", "write the file again"),
        ("in.txt", b"\xff\xfe", "UTF-8"),
        ("in.docx", "a", "--input_format"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_is_loaded(
    tmp_path, reward_file, monkeypatch, name, content, message
):
    monkeypatch.setattr(score_job._Job, "_score", None)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"(?s){message}"):
        run(tmp_path / name, reward_file, tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": None}, "--reward article"),
        ({"input_format": "xlsx"}, "one of csv, jsonl, lines, parquet, tsv"),
        ({"missing": "ignore"}, "error, skip, empty"),
        ({"input": "missing.csv"}, "the file missing.csv[\\s\\S]*no such file"),
        ({"input": "-", "input_format": "parquet"}, "give the file's path"),
        ({"output": "out.xlsx"}, "ends in .jsonl, .csv, .parquet"),
        ({"output": "nowhere/out.jsonl"}, "make the folder"),
        ({"device": "gpu"}, "'cuda:1'"),
        ({"text_column": "txt"}, "did you mean 'text'"),
        ({"prompt_column": "prompt"}, "--prompt_column"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, monkeypatch, reward_file, settings, message):
    monkeypatch.chdir(tmp_path)
    given = {"input": write(tmp_path / "in.jsonl", TEXTS), "reward": reward_file, **settings}
    with pytest.raises(InputError, match=f"(?s){message}"):
        score_file(ScoreSettings(**given))


def test_a_component_that_would_share_its_column_with_the_total_is_refused(tmp_path):
    reward = tmp_path / "reward.yaml"
    reward.write_text("rewards: [{function: length, max_length: 3, name: total}, {function: repetition}]")
    with pytest.raises(InputError, match="no component named 'total'"):
        score_file(ScoreSettings(input=write(tmp_path / "in.jsonl", TEXTS), reward=str(reward)))


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [32, 256, 12]), ("cuda", [32, 268])])
def test_a_job_soon_writes_its_first_rows_and_on_a_cpu_more_often(tmp_path, reward_file, monkeypatch, device, sizes):
    scored = []

    def score(self, rows):
        scored.append(len(rows))
        return [dict.fromkeys(self.columns, 1.0)] * len(rows)

    monkeypatch.setattr(devices, "own_device", lambda: torch.device(device))
    monkeypatch.setattr(score_job._Job, "_score", score)
    run(write(tmp_path / "in.jsonl", ["a"] * 300), reward_file, tmp_path / "out.jsonl")
    assert scored == sizes


def test_a_near_file_name_is_suggested(tmp_path, reward_file):
    write(tmp_path / "in.jsonl", TEXTS)
    with pytest.raises(InputError, match=r"did you mean '.*/in\.jsonl'"):
        run(tmp_path / "in.csv", reward_file, tmp_path / "out.jsonl")


def test_standard_input_of_several_processes_is_refused(monkeypatch, reward_file):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes"):
        score_file(ScoreSettings(reward=reward_file))


def test_the_command_checks_its_input_once(tmp_path, monkeypatch, reward_file):
    files = []
    monkeypatch.setattr(score_job, "preset_content", lambda file: files.append(file) or preset_content(file))
    source, output = write(tmp_path / "in.jsonl", TEXTS[:2]), str(tmp_path / "out.jsonl")
    assert main(["score", source, "--reward", reward_file, "--output", output]) == 0
    assert files == [reward_file]


# --- several processes ---


@pytest.mark.slow
def test_two_launched_processes_share_the_texts(tmp_path, reward_file):
    texts = [f"{number} bottles" for number in range(1_100)]  # whole rounds, and a rest for the first alone
    source, output = write(tmp_path / "in.csv", texts), tmp_path / "out.jsonl"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command = ["-m", "trl_rewards_plugin.cli.main", "score", source, "--reward", reward_file, "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}
    done = subprocess.run([*launch, *command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read(output)
    assert [row["text"] for row in rows] == texts
    found = torch.tensor([row["total"] for row in rows])
    torch.testing.assert_close(found, expected(reward_file, texts).total, rtol=0, atol=1e-5)
    assert done.stderr.count("1100 texts in") == 1
    content = output.read_bytes()
    output.write_bytes(content[: len(content) // 2])
    done = subprocess.run([*launch, *command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["text"] for row in read(output)] == texts
    assert "of them before" in done.stderr


# --- texts without a score ---


def only_long(completions, **kwargs):
    return [1.0 if len(text) > 10 else None for text in completions]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_text_that_nothing_scored_has_an_empty_score(tmp_path, ending):
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump({"rewards": [{"function": f"{__name__}.only_long"}]}))
    source = write(tmp_path / "in.jsonl", ["short", "long enough"])
    for _ in range(2):
        summary = run(source, str(path), tmp_path / f"out{ending}")
        assert summary.means == {"total": 1.0, "only_long": 1.0}
    content = (tmp_path / f"out{ending}").read_bytes()
    if ending == ".parquet":
        table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
        assert table["total"].to_pylist() == table["only_long"].to_pylist() == [None, 1.0]
    elif ending == ".csv":
        assert content == b"text,total,only_long\r\nshort,,\r\nlong enough,1.0,1.0\r\n"
    else:
        assert b'"total": null, "only_long": null}\n' in content


# --- damage ---

COLUMNS = "text,total,quality,neutrality"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.csv", b'te,else\r\n"1 '),  # a header of another file, and a torn row
        ("out.csv", f"{COLUMNS},more\r\nhello,1,1,1,caf".encode() + b"\xe9\r\n"),
        ("out.csv", f"{COLUMNS}\r\nThe cat sleeps.,x,1,1\r\n".encode()),
        ("out.jsonl", b'{"text": "The cat sleeps.", "total": [1], "quality": 1, "neutrality": 1}\n'),
        ("out.jsonl", b"[" * 100_000 + b"\n"),
        ("out.parquet", b"PAR1 and no more PAR1"),
        ("out.parquet", b""),
    ],
)
def test_a_damaged_output_is_refused_and_left_alone(tmp_path, reward_file, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        run(write(tmp_path / "in.jsonl", TEXTS), reward_file, tmp_path / name)
    assert (tmp_path / name).read_bytes() == content
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"in.jsonl", name}


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_whatever_is_cut_off_or_flipped_no_row_is_lost_or_doubled(tmp_path, ending):
    reward = tmp_path / "r.yaml"
    reward.write_text("rewards: [{function: length, max_length: 2}, {function: repetition}]")
    texts = ["two\nlines", 'a "q", b', "naïve 🙂\u2028", "", *TEXTS]
    source, output = write(tmp_path / "in.jsonl", texts, number=list(range(len(texts)))), tmp_path / f"out{ending}"
    run(source, str(reward), output)
    whole, generator = output.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(60):
        content = bytearray(whole[: generator.randrange(1, len(whole) + 1)])
        if generator.random() < 0.7:
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        output.write_bytes(content)
        try:
            run(source, str(reward), output)
        except InputError:
            refused += 1
            assert output.read_bytes() == content
            continue
        if ending == ".parquet":
            found = pyarrow.parquet.read_table(output)["text"].to_pylist()
        elif ending == ".csv":
            found = [row["text"] for row in csv.DictReader(io.StringIO(output.read_bytes().decode(), newline=""))]
        else:
            found = [json.loads(line)["text"] for line in output.read_bytes().split(b"\n")[:-1]]
        assert found == texts
    assert 0 < refused <= 60
