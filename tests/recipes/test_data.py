import json

import datasets
import huggingface_hub
import pandas
import pytest
from datasets import Dataset, DatasetDict

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.recipes.data import MAX_EVAL_ROWS, load_run_data

TEXTS = [f"text {index}" for index in range(20)]


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_kind_of_file_gives_the_same_prompts(tmp_path):
    rows = [{"body": text, "id": index} for index, text in enumerate(TEXTS)]
    files = [
        write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
        write(tmp_path, "b.json", json.dumps(rows)),
        write(tmp_path, "c.csv", "body,id\n" + "".join(f"{row['body']},{row['id']}\n" for row in rows)),
        write(tmp_path, "d.txt", "\n\n".join(TEXTS)),
        tmp_path / "e.parquet",
    ]
    Dataset.from_list(rows).to_parquet(files[-1])
    for path in files:
        data = load_run_data(str(path), path, text_column="body", prompt_prefix="say: ")
        assert list(data.train["prompt"]) == [f"say: {text}" for text in TEXTS], path.name
        assert data.as_held_out.sources == TEXTS
        assert data.eval_name == f"all 20 rows of {path.name}"
        if path.suffix != ".txt":
            assert data.as_held_out.columns["id"] == list(range(20))


def test_a_list_of_texts_and_a_data_set_are_taken_as_they_are():
    assert list(load_run_data(TEXTS, TEXTS[:2]).train["prompt"]) == TEXTS
    rows = Dataset.from_dict({"prompt": TEXTS, "other": TEXTS})
    data = load_run_data(rows, rows)
    assert data.train.column_names == ["prompt", "other"]


def test_an_unused_prompt_column_gives_way_to_the_named_one():
    rows = Dataset.from_dict({"prompt": ["x"] * 20, "body": TEXTS})
    assert list(load_run_data(rows, rows, text_column="body").train["prompt"]) == TEXTS


def test_the_column_of_texts_may_have_any_name():
    assert load_run_data(["a", "b", "c"], text_column="place").as_held_out.prompts


def test_cut_prompts_are_counted_with_what_is_left_of_them():
    def tokenizer(texts, verbose):
        return {"input_ids": [text.split() for text in texts]}

    data = load_run_data(["a", "a b", "a b c d", "a b c d e"], ["a b c d e f g h"])
    # Longer than two tokens: one of 4, one of 5 and one of 8, of which 1/2, 2/5 and 1/4 are read.
    assert data.count_cuts(tokenizer, 2) == {"prompts": 5, "cut": 3, "limit": 2, "kept": 0.4, "for_most": 8}
    assert data.count_cuts(tokenizer, 8) == {"prompts": 5, "cut": 0, "limit": 8, "kept": None, "for_most": 8}
    long = load_run_data(["a"] * 15 + ["a b c"] * 4, ["a b c d"] * 3)  # of 22, no more than 2 may be longer
    assert long.count_cuts(tokenizer, 2)["for_most"] == 4
    assert load_run_data(["a"] * 16 + ["a b c"] * 4, ["a b c d"] * 2).count_cuts(tokenizer, 2)["for_most"] == 3


def test_held_out_prompts_that_training_sees_are_refused_or_counted():
    rows = Dataset.from_dict({"prompt": TEXTS})
    for same in (TEXTS, rows, DatasetDict({"test": rows}), TEXTS[::-1], TEXTS[3:9]):
        with pytest.raises(InputError, match=r"all \d+ of them among the given texts"):
            load_run_data(TEXTS, same, prompt_prefix="say: ").checked()
    assert "20 of 20 held-out prompts" in load_run_data(TEXTS, TEXTS).checked(resumes=True).warning
    assert load_run_data(TEXTS, ["a new one"]).checked().eval_name.startswith("all 1 rows of the given texts (too few")
    some = load_run_data(TEXTS, ["new", *TEXTS[:2]]).checked()
    assert some.warning == "2 of 3 held-out prompts are also in the training data"
    assert "training data" not in some.eval_name
    assert "4 of 4 held-out prompts" in load_run_data(TEXTS[:2] * 20).checked().warning  # one file, with duplicates


def test_hold_out_is_seeded_disjoint_and_announced():
    data = load_run_data(TEXTS, seed=4)
    train, held_out = set(data.train["prompt"]), set(data.held_out["prompt"])
    assert len(held_out) == 2
    assert train | held_out == set(TEXTS)
    assert not train & held_out
    assert held_out == set(load_run_data(TEXTS, seed=4).held_out["prompt"])
    assert held_out != set(load_run_data(TEXTS, seed=5).held_out["prompt"])
    assert data.eval_name == (
        "2 of 20 rows of the given texts, held out at random with seed 4 (too few for an interval of the gain, which "
        "takes 5)"
    )
    assert "too few" not in load_run_data([*TEXTS, *TEXTS, "one more"], seed=4).eval_name


def test_a_test_split_is_held_out_up_to_a_hundred_rows():
    many = Dataset.from_dict({"prompt": [f"row {index}" for index in range(150)]})
    data = load_run_data(DatasetDict(train=many, test=many))
    assert len(data.train) == 150
    assert len(data.held_out) == MAX_EVAL_ROWS
    assert data.eval_name == "the first 100 of 150 rows of the given data set, split test"
    both = DatasetDict(train=many, test=many, validation=many.select(range(3)))
    assert "3 of 3 rows of the given data set, split validation" in load_run_data(both).eval_name


def test_a_bundled_file_is_named_without_its_path():
    data = load_run_data("bundled:prompts/train.jsonl", "bundled:prompts/heldout.jsonl")
    assert data.train_name == "bundled:prompts/train.jsonl"
    assert len(data.held_out) == len(data.as_held_out.prompts)
    assert not set(data.train["prompt"]) & set(data.held_out["prompt"])


def test_a_downloaded_repository_serves_offline(tmp_path, monkeypatch):
    folder = tmp_path / "snapshot"
    (folder / "data").mkdir(parents=True)
    Dataset.from_dict({"prompt": TEXTS}).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    real = datasets.load_dataset

    def offline(name, **kwargs):
        if name == "owner/texts":
            raise ConnectionError("Couldn't reach the Hub")
        return real(name, **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(folder))
    assert len(load_run_data("owner/texts", TEXTS).train) == 20


def test_an_unreachable_hub_id_is_refused_in_three_parts(monkeypatch):
    def offline(name, **kwargs):
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError) as caught:
        load_run_data("nobody/no-such-data-set")
    assert caught.value.found == "Couldn't reach 'nobody/no-such-data-set' on the Hub"
    assert "local cache" in caught.value.expected


@pytest.mark.parametrize(
    ("name", "step"),
    [("news.cvs", "did you mean 'news.csv'?"), ("./x", "check the path"), ("settings.yaml", "check the path")],
)
def test_what_is_meant_as_a_path_is_never_asked_of_the_hub(tmp_path, monkeypatch, name, step):
    write(tmp_path, "news.csv", "prompt\na\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **kwargs: pytest.fail(f"asked for {name}"))
    with pytest.raises(InputError, match="no such file") as caught:
        load_run_data(name)
    assert caught.value.next_step == step


def refusals(folder):
    write(folder, "train.jsonl", '{"prompt": "x"}\n')
    write(folder, "empty.jsonl", "")
    write(folder, "blank.txt", "\n \n")
    write(folder, "odd.xlsx", "x")
    named = str(folder)
    return [
        (f"{named}/trein.jsonl", {}, "no such file", "did you mean 'FOLDER/train.jsonl'?"),
        (f"{named}/nothing/x.csv", {}, "no such file", "check the path"),
        (f"{named}/empty.jsonl", {}, "an empty file", "rows"),
        (f"{named}/blank.txt", {}, "an empty file", "rows"),
        (f"{named}/odd.xlsx", {}, "odd.xlsx", "convert"),
        (f"{named}/odd stuff", {}, "odd stuff", "spelling"),
        (named, {}, "the folder", "train.jsonl"),
        ([], {}, "an empty file or data set", "rows"),
        (
            Dataset.from_dict({"prompt": [None, None]}),
            {"missing": "skip"},
            "2 without a text, which were skipped",
            "rows",
        ),
        (TEXTS[:2], {}, "2", "eval_dataset"),
        (["a", " ", "b", "c"], {}, "' ' in row 2", "filter"),
        (Dataset.from_dict({"prompt": ["a", None]}), {}, "none in row 2", "--missing skip"),
        (Dataset.from_dict({"txet": TEXTS}), {"text_column": "text"}, "txet", "did you mean 'txet'?"),
        (Dataset.from_dict({"abc": TEXTS}), {"text_column": "zzz"}, "abc", "text_column"),
        (DatasetDict(), {}, "none", "rows"),
        (7, {}, "int", "Dataset.from_list"),
        (pandas.DataFrame({"prompt": TEXTS}), {}, "DataFrame", "Dataset.from_pandas(df)"),
    ]


@pytest.mark.parametrize("index", range(17))
def test_bad_data_is_refused_with_a_next_step(tmp_path, index):
    dataset, settings, found, step = refusals(tmp_path)[index]
    with pytest.raises(InputError) as caught:
        load_run_data(dataset, **settings)
    assert found in caught.value.found
    assert step.replace("FOLDER", str(tmp_path)) in caught.value.next_step


def test_rows_that_were_left_out_are_counted_in_the_names():
    texts = [*"abcdefghij", None, None]
    data = load_run_data(Dataset.from_dict({"prompt": texts}), missing="skip")
    assert data.train_name == "the given data set (2 without a text left out)"
    assert data.eval_name.startswith("2 of 10 rows of the given data set (2 without a text left out), held out")
    splits = DatasetDict({name: Dataset.from_dict({"prompt": texts}) for name in ("train", "test")})
    assert "split test (2 without a text left out)" in load_run_data(splits, missing="skip").eval_name
    rows = Dataset.from_dict({"prompt": texts})
    assert "rows of the given data set (2 without" in load_run_data(["a", "b"], rows, missing="skip").eval_name
