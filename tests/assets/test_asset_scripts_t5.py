"""The scripts that made the prompts and the tiny T5 still run: each in a process of its own, on made-up documents."""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from trl_rewards_plugin.assets import verify_checksums

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "assets"


def run(script: str, *arguments: str | Path) -> str:
    """Standard output of a script of examples/assets."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ewt.jsonl and gum.jsonl: 200 documents of one paragraph of three sentences each."""
    folder = tmp_path_factory.mktemp("documents")
    rng = random.Random(0)
    people, deeds = ["Ann", "Bob", "The old man", "My sister"], ["saw", "bought", "painted", "wanted to sell"]
    things, places = ["a boat", "two horses", "the house", "my car"], ["in town", "last week", "by the sea", "at noon"]
    for name, identifier in (("ewt", "reviews-{}"), ("gum", "GUM_news_{}")):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as stream:
            for number in range(200):
                paragraph = [
                    f"{rng.choice(people)} {rng.choice(deeds)} {rng.choice(things)} of number {name} {number} {part} "
                    f"{rng.choice(places)}."
                    for part in ("one", "two", "three")
                ]
                stream.write(json.dumps({"id": identifier.format(number), "paragraphs": [paragraph]}) + "\n")
    return folder


def test_make_prompts_keeps_held_out_documents_apart(documents: Path, tmp_path: Path) -> None:
    run("make_prompts.py", "--documents", documents / "ewt.jsonl", "--out", tmp_path, "--smoke")

    verify_checksums(tmp_path)
    train, held_out = rows(tmp_path / "train.jsonl"), rows(tmp_path / "heldout.jsonl")
    assert (len(train), len(held_out)) == (8, 4)
    assert {row["id"] for row in train}.isdisjoint(row["id"] for row in held_out)
    assert all(set(row) == {"prompt", "id"} and row["prompt"].count(".") in (2, 3) for row in train + held_out)


def test_make_prompts_is_deterministic(documents: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        run("make_prompts.py", "--documents", documents / "ewt.jsonl", "--out", tmp_path / name, "--smoke")
    assert (tmp_path / "first" / "SHA256SUMS").read_text() == (tmp_path / "second" / "SHA256SUMS").read_text()


def test_train_tiny_t5_writes_a_model_that_loads_in_float32(documents: Path, tmp_path: Path) -> None:
    out = run("train_tiny_t5.py", "--documents", documents, "--out", tmp_path, "--smoke")

    assert "greedy" in out
    verify_checksums(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert str(model.dtype) == "torch.float32"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    text = "Ann saw two horses by the sea."
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_add_fillers_goes_on_from_that_model_and_tells_so(documents: Path, tmp_path: Path) -> None:
    run("train_tiny_t5.py", "--documents", documents, "--out", tmp_path / "copier", "--smoke")
    arguments = ("--model", tmp_path / "copier", "--documents", documents, "--out", tmp_path / "talker", "--smoke")
    run("add_fillers.py", *arguments)

    verify_checksums(tmp_path / "talker")
    story = (tmp_path / "talker" / "README.md").read_text(encoding="utf-8")
    assert "train_tiny_t5.py" in story
    assert "add_fillers.py" in story
    old, new = (AutoModelForSeq2SeqLM.from_pretrained(tmp_path / name) for name in ("copier", "talker"))
    assert not torch.equal(old.shared.weight, new.shared.weight)


def test_fillers_come_after_a_sentence_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    add_fillers = importlib.import_module("add_fillers")
    rng = random.Random(0)
    spoken = [add_fillers.trail_off([10, 11, 20], rng, [[90], [91]]) for _ in range(500)]
    assert {tuple(row) for row in spoken} == {(10, 11, 20), (10, 11, 20, 90), (10, 11, 20, 91)}
    assert sum(len(row) == 4 for row in spoken) / 500 == pytest.approx(add_fillers.FILLER_SHARE, abs=0.08)
    assert add_fillers.filler_share(["I like it", "so be it"], ["I like it", "be it"]) == 0.5


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/assets/copy_measures.py, which imports its neighbours by their plain names."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("copy_measures")


@pytest.mark.parametrize(
    ("left", "right", "edits"),
    [
        ("We sat down.", "We sat down.", 0),
        ("We sat.", "We sat down.", 2),  # one word altered, one added
        ("We all sat down.", "We sat down.", 1),
        ("", "We sat down.", 3),
        ("Wait \u2026 no.", "Wait ... no.", 0),  # NFKC, as the tokenizer does
    ],
)
def test_word_edits(measures: ModuleType, left: str, right: str, edits: int) -> None:
    assert measures.word_edits(left, right) == measures.word_edits(right, left) == edits


def test_closest_sentence_gives_its_position_and_the_edits(measures: ModuleType) -> None:
    passage = 'He said "go now." We went home at once! Was that all?'
    assert measures.split_sentences(passage) == ['He said "go now."', "We went home at once!", "Was that all?"]
    assert measures.closest_sentence("We went home once!", passage) == (1, 1)


def test_has_loop_needs_the_same_three_words_twice(measures: ModuleType) -> None:
    assert measures.has_loop("on and on and on and")
    assert not measures.has_loop("on and off and on again")


def test_choice_entropy_is_one_for_equal_sentences_and_ignores_what_is_no_sentence(measures: ModuleType) -> None:
    assert measures.choice_entropy(torch.tensor([0.1, 0.1, 0.1]).log()) == pytest.approx(1.0)
    # 3/4 and 1/4: (0.75 ln(4/3) + 0.25 ln 4) / ln 2
    assert measures.choice_entropy(torch.tensor([0.3, 0.1]).log()) == pytest.approx(0.8112781, abs=1e-5)
