"""Files of texts are read alike by every command: as many rows, with the same texts."""

import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.recipes.data import load_run_data
from trl_rewards_plugin.recipes.evaluate.evaluation_inputs import read_outputs
from trl_rewards_plugin.rows import (
    FORMATS,
    check_column,
    existing_file,
    format_of,
    prompt_columns,
    read_columns,
    read_rows,
    without_missing,
)
from trl_rewards_plugin.scoring import score_job
from trl_rewards_plugin.scoring.score_job import ScoreSettings, score_file

SEPARATORS = ["\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u001c", "\u001d", "\u001e"]
# Texts that some readers split, take for missing or for numbers, or strip.
TEXTS = [*(f"one{separator}text" for separator in SEPARATORS), "NA", "null", "NaN", "1", "1.50", "True", " spaces "]


def content_of(ending, texts):
    """The bytes of a file with the column "text"."""
    if ending == ".parquet":
        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), stream)
        return stream.getvalue()
    if ending in (".csv", ".tsv"):
        stream = io.StringIO(newline="")
        csv.writer(stream, quoting=csv.QUOTE_ALL, delimiter="," if ending == ".csv" else "\t").writerows(
            [["text"], *([text] for text in texts)]
        )
        return stream.getvalue().encode()
    rows = [{"text": text} for text in texts]
    if ending == ".json":
        return json.dumps(rows, ensure_ascii=False, indent=2).encode()
    if ending in (".jsonl", ".ndjson"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return "".join(f"{text}\n" for text in texts).encode()


def scored(path, folder):
    (folder / "reward.yaml").write_text(yaml.safe_dump({"rewards": [{"function": "length", "max_length": 9}]}))
    score_file(ScoreSettings(input=str(path), reward=str(folder / "reward.yaml"), output=str(folder / "out.jsonl")))
    return [json.loads(line)["text"] for line in (folder / "out.jsonl").read_text().split("\n")[:-1]]


READERS = {
    "score": scored,
    "evaluate": lambda path, folder: read_outputs(str(path), "text")["text"],
    "train": lambda path, folder: list(load_run_data(str(path), str(path), text_column="text").train["prompt"]),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ending", FORMATS)
def test_every_command_reads_the_same_texts(tmp_path, ending, reader):
    path = tmp_path / f"in{ending}"
    path.write_bytes(content_of(ending, TEXTS))
    assert READERS[reader](path, tmp_path) == TEXTS


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ending", [".txt", ".csv", ".jsonl", ".json"])
def test_a_byte_order_mark_is_no_text(tmp_path, ending, reader):
    path = tmp_path / f"in{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + content_of(ending, ["first", "second"]))
    assert READERS[reader](path, tmp_path) == ["first", "second"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_three_ways(tmp_path, end, reader):
    path = tmp_path / "in.txt"
    path.write_bytes(end.join(["first", "second", "third"]).encode())
    assert READERS[reader](path, tmp_path) == ["first", "second", "third"]


def test_standard_input_has_no_byte_order_mark_either(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa\xe2\x80\xa8b\n"), encoding="ascii"))
    assert list(read_rows("-", "lines", "text")) == [{"text": "a\u2028b"}]


def test_numbers_of_a_csv_file_are_numbers_but_in_the_text_column(tmp_path):
    (tmp_path / "in.csv").write_text("text,count,share,flag,code\n1,1,0.5,true,a1\n2,,1,false,7\n")
    assert read_columns(tmp_path / "in.csv", "text") == {
        "text": ["1", "2"],
        "count": [1, None],
        "share": [0.5, 1.0],
        "flag": [True, False],
        "code": ["a1", "7"],
    }


def test_a_column_that_only_some_rows_have_is_none_elsewhere(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n\n{"text": "b", "more": [1]}\n{"more": [2]}\n')
    assert read_columns(tmp_path / "in.jsonl", "text") == {"text": ["a", "b", None], "more": [None, [1], [2]]}


@pytest.mark.parametrize("content", ["", "text\n", "text,count\n"])
def test_a_file_without_rows_is_refused_by_training_and_evaluation(tmp_path, content):
    (tmp_path / "in.csv").write_text(content)
    assert read_columns(tmp_path / "in.csv", "text") == {}
    for read in (READERS["train"], READERS["evaluate"]):
        with pytest.raises(InputError, match="an empty file"):
            read(tmp_path / "in.csv", tmp_path)


@pytest.mark.parametrize(
    ("rows", "found"), [(['{"a": 1}', '{"a": "x"}'], "Could not convert"), (['{"a": "\\ud800"}'], "surrogates")]
)
def test_a_column_that_no_table_can_hold_is_refused(tmp_path, rows, found):
    texts = [json.loads(row) | {"prompt": "text"} for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    with pytest.raises(InputError, match=rf"one type in each column[\s\S]*{found}"):
        load_run_data(str(tmp_path / "in.jsonl"))


@pytest.mark.parametrize(
    ("name", "step"),
    [("news.csv", "news.jsonl'?"), ("nwes.jsonl", "news.jsonl'?"), ("x.jsonl", "the path"), ("else.txt", "the path")],
)
def test_a_missing_file_is_refused_with_a_near_name(tmp_path, name, step):
    (tmp_path / "news.jsonl").write_text("")
    with pytest.raises(InputError) as caught:
        existing_file(tmp_path / name)
    assert caught.value.found == "no such file"
    assert step in caught.value.next_step


def test_a_list_of_objects_names_what_is_no_object(tmp_path):
    (tmp_path / "in.json").write_text('[{"text": "a"}, "b"]')
    with pytest.raises(InputError, match="str in line 1"):
        list(read_rows(str(tmp_path / "in.json"), format_of(str(tmp_path / "in.json")), "text"))


# --- missing texts ---

HOLES = {
    "in.jsonl": b'{"text": "a", "n": 1}\n{"text": null, "n": 2}\n{"text": "c", "n": 3}\n{"n": 4}\n',
    "in.csv": b"text,n\na,1\n,2\nc,3\n,4\n",
    "in.tsv": b"text\tn\na\t1\n\t2\nc\t3\n\t4\n",
    "in.parquet": content_of(".parquet", ["a", None, "c", None]),
}


def read_with(reader, path, folder, missing):
    if reader == "score":
        reward = folder / "reward.yaml"
        reward.write_text("rewards: [{function: length, max_length: 9}]")
        output = folder / "out.jsonl"
        score_file(ScoreSettings(input=str(path), reward=str(reward), output=str(output), missing=missing))
        return [json.loads(line)["text"] for line in output.read_text().splitlines()]
    if reader == "evaluate":
        return read_outputs(str(path), "text", missing)["text"]
    return list(load_run_data(str(path), ["a", "b"], text_column="text", missing=missing).train["prompt"])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOLES)
def test_a_missing_text_is_refused_skipped_or_empty_alike_everywhere(tmp_path, name, reader):
    (tmp_path / name).write_bytes(HOLES[name])
    with pytest.raises(
        InputError,
        match=r"none in (2 rows, the first of them )?row 2 \(rows of data, counted from 1\)[\s\S]*--missing skip",
    ):
        read_with(reader, tmp_path / name, tmp_path, "error")
    assert not (tmp_path / "out.jsonl").exists()
    assert read_with(reader, tmp_path / name, tmp_path, "skip") == ["a", "c"]
    (tmp_path / "out.jsonl").unlink(missing_ok=True)
    assert read_with(reader, tmp_path / name, tmp_path, "empty") == ["a", "", "c", ""]


def test_other_columns_stay_with_their_rows_where_some_are_skipped(tmp_path):
    (tmp_path / "in.csv").write_bytes(HOLES["in.csv"])
    data = load_run_data(str(tmp_path / "in.csv"), ["a", "b"], text_column="text", missing="skip")
    assert list(data.train["n"]) == [1, 3]


def test_what_missing_may_be_is_said(tmp_path):
    with pytest.raises(InputError, match="error, skip, empty"):
        list(without_missing([], [], "drop", "x"))


# --- files that are taken for others ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "in.csv",
            "text;n\nü;1\n".encode(),
            r"commas between[\s\S]*semicolons[\s\S]*in.csv', sep=';'[\s\S]*index=False",
        ),
        ("in.csv", b"text\tn\na\t1\n", r"commas between[\s\S]*tabs[\s\S]*\.tsv"),
        ("in.tsv", b"text,n\na,1\n", r"tabs between[\s\S]*commas[\s\S]*\.csv"),
        ("in.csv", "text\ncafé\n".encode("latin-1"), r"0xe9, as in Win[\s\S]*iconv -f windows-1252 .*converted\.csv"),
        ("in.txt", "café\n".encode("utf-16"), r"as in UTF-16[\s\S]*iconv -f utf-16"),
        ("in.jsonl", b'{"n": ' + b"9" * 5_000 + b"}\n", r"JSON in line 1"),
        ("in.csv", b'\nlines"\t1', r"commas between[\s\S]*tabs"),  # a blank line is no header
    ],
)
def test_a_file_of_another_make_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_rows(str(tmp_path / name), format_of(str(tmp_path / name)), "text"))


def test_a_semicolon_in_the_name_of_the_text_column_is_no_separator(tmp_path):
    (tmp_path / "in.csv").write_text("a;b\nx\n")
    assert list(read_rows(str(tmp_path / "in.csv"), "csv", "a;b")) == [{"a;b": "x"}]


@pytest.mark.parametrize(
    "rows", [[{"n": 1}, {"n": "x"}], [{"n": [1]}, {"n": {"a": 1}}], [{"n": 10**30}, {"n": 1}], [{"n": [1, "a"]}]]
)
@pytest.mark.parametrize("size", [1, 512])
def test_mixed_types_are_refused_for_parquet_before_a_text_is_scored(tmp_path, rows, size, monkeypatch):
    monkeypatch.setattr(score_job, "SLICE", size)  # within one slice of rows, or from one to the next
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": "a", **row}) + "\n" for row in rows))
    (tmp_path / "reward.yaml").write_text("rewards: [{function: length, max_length: 9}]")
    settings = {"input": str(tmp_path / "in.jsonl"), "reward": str(tmp_path / "reward.yaml")}
    with pytest.raises(InputError, match="one type in each column"):
        score_file(ScoreSettings(**settings, output=str(tmp_path / "out.parquet")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "reward.yaml"]
    score_file(ScoreSettings(**settings, output=str(tmp_path / "out.jsonl")))
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["n"] for row in written] == [row["n"] for row in rows]


def test_a_column_called_self_reaches_a_reward_that_takes_everything(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a b", "self": 1}\n')
    (tmp_path / "reward.yaml").write_text("rewards: [{function: length, max_length: 1}]")
    settings = {"input": str(tmp_path / "in.jsonl"), "reward": str(tmp_path / "reward.yaml")}
    score_file(ScoreSettings(**settings, output=str(tmp_path / "out.jsonl")))
    assert json.loads((tmp_path / "out.jsonl").read_text())["self"] == 1


@pytest.mark.parametrize("name", ["news.cvs", "./nowhere", "texts/", "data.yaml", "~/nowhere.jsonl"])
def test_what_is_meant_as_a_path_is_not_asked_of_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news.csv").touch()
    monkeypatch.setattr("datasets.load_dataset", lambda name: pytest.fail("asked the Hub"))
    with pytest.raises(InputError) as caught:
        load_run_data(name)
    assert name != "news.cvs" or "news.csv'?" in caught.value.next_step


def test_a_near_column_is_the_only_answer():
    with pytest.raises(InputError, match=r"did you mean 'completion'\? name .* \(--text_column completion\)$"):
        check_column("complet", {"prompt": [], "completion": []}, "texts.jsonl")


def test_a_column_that_the_first_row_lacks_may_be_in_others_of_json_lines_alone(tmp_path):
    rows, table = tmp_path / "rows.jsonl", tmp_path / "table.csv"
    rows.write_text('{"topic": "a"}\n{"topic": "b", "prompt": "c"}\n', encoding="utf-8")
    table.write_text("topic\na\n", encoding="utf-8")
    assert prompt_columns(rows, "rows", "prompt")["prompt"] == [None, "c"]
    with pytest.raises(InputError, match="the column 'text' in rows"):
        prompt_columns(rows, "rows", "text")
    with pytest.raises(InputError, match="the column 'prompt' in table"):
        prompt_columns(table, "table", "prompt")


def test_the_advice_for_semicolons_keeps_every_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text('text;n\nNA;007\n"a, b";\n', encoding="utf-8-sig")
    with pytest.raises(InputError) as caught:
        list(read_rows("in.csv", "csv", "text"))
    exec(caught.value.next_step.split('"')[1])
    assert list(read_rows("converted.csv", "csv", "text")) == [{"text": "NA", "n": "007"}, {"text": "a, b", "n": None}]


@pytest.mark.parametrize(
    ("column", "step"),
    [
        (
            "article body",
            "did you mean 'Article Body'? name the column of the texts with text_column (--text_column 'A",
        ),
        ("prompt", "name the column of the texts with text_column (--text_column 'Article Body')"),
    ],
)
def test_the_column_that_is_proposed_is_the_near_one_or_that_of_the_longest_texts(column, step):
    columns = {"Date": ["2020-01-01"], "Article Body": ["A cat sleeps on a mat."], "n": [3]}
    with pytest.raises(InputError) as caught:
        check_column(column, columns, "news.csv")
    assert caught.value.next_step.startswith(step)
