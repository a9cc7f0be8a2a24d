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
from trl_rewards_plugin.recipes.evaluate.evaluation_job import read_outputs
from trl_rewards_plugin.rows import FORMATS, existing_file, format_of, read_columns, read_rows
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
    if ending == ".csv":
        stream = io.StringIO(newline="")
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["text"], *([text] for text in texts)])
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
    "evaluate": lambda path, folder: read_outputs(str(path), "text"),
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
    ("name", "step"), [("in.csv", "'in.jsonl'"), ("im.jsonl", "'in.jsonl'"), ("else.txt", "check the path")]
)
def test_a_missing_file_is_refused_with_a_near_name(tmp_path, name, step):
    (tmp_path / "in.jsonl").write_text("")
    with pytest.raises(InputError) as caught:
        existing_file(tmp_path / name)
    assert caught.value.found == "no such file"
    assert step in caught.value.next_step


def test_a_list_of_objects_names_what_is_no_object(tmp_path):
    (tmp_path / "in.json").write_text('[{"text": "a"}, "b"]')
    with pytest.raises(InputError, match="str in line 1"):
        list(read_rows(str(tmp_path / "in.json"), format_of(str(tmp_path / "in.json")), "text"))
