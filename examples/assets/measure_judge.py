"""Measures a judge: Matthews correlation, macro-recall, and real sentences ranked above spoilt copies.

    python measure_judge.py --judge FOLDER --dev dev.csv
    python measure_judge.py --judge FOLDER --dev dev.csv --documents ewt.jsonl gum.jsonl

The documents are split by `corpus.is_held_out` and only the held-out ones are read. The judge runs in float32,
whatever its file holds. Leaves out: training.
"""

import argparse
import csv
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from corpus import read_documents, sentences, split_documents
from corrupt import MEASURED, corrupt
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trl_rewards_plugin.errors import InputError

LEAST_WORDS, MOST_WORDS = 4, 40  # of a real sentence, in training and in the measurement
PAIRS = 1000


def read_rows(path: str | Path, labels: Sequence[str]) -> list[tuple[str, int]]:
    """(text, label's index) of a CSV file whose label column holds a label's name or its index."""
    known = {name: index for index, name in enumerate(labels)} | {str(i): i for i in range(len(labels))}
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if not {"text", "label"} <= set(reader.fieldnames or ()):
            raise InputError(
                "columns text,label", f"{reader.fieldnames} in {path}", "name the columns in the first line"
            )
        rows = [(row["text"], row["label"]) for row in reader]
    for number, (_, label) in enumerate(rows, start=1):
        if label not in known:
            raise InputError(
                f"a label of {', '.join(labels)}, or its index",
                f"{label!r} in row {number} of {path}",
                "correct the file, or name its labels in --labels",
            )
    return [(text, known[label]) for text, label in rows]


@torch.no_grad()
def logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch: int = 32
) -> torch.Tensor:
    """[len(texts), labels] in the order of `texts`; batches are of like lengths, the model is left in eval mode."""
    model.eval()
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    out = torch.empty(len(texts), model.config.num_labels)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer([texts[row] for row in rows], padding=True, truncation=True, return_tensors="pt")
        out[rows] = model(**inputs).logits.float()
    return out


def macro_recall(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """Mean over the labels that occur of the share of their rows that is found."""
    return statistics.mean((predicted[true == label] == label).float().mean().item() for label in true.unique())


def matthews(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """Matthews correlation of two 0/1 vectors; 0 where one of them is constant."""
    stacked = torch.stack([predicted, true]).double()
    if (stacked.std(dim=1) == 0).any():
        return 0.0
    return torch.corrcoef(stacked)[0, 1].item()


def ranked_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, real: Sequence[str], pairs: int = PAIRS
) -> dict[str, float]:
    """Share of pairs whose real sentence has the higher last logit, overall and by kind of corruption."""
    rng = random.Random(0)
    drawn = rng.sample(list(real), min(pairs, len(real)))
    kinds = [MEASURED[row % len(MEASURED)] for row in range(len(drawn))]
    spoilt = [corrupt(text, rng, (), {kind: 1.0}) for text, kind in zip(drawn, kinds, strict=True)]
    above = logits(model, tokenizer, drawn)[:, -1] > logits(model, tokenizer, spoilt)[:, -1]
    shares = {"pairs": above.float().mean().item()}
    for kind in MEASURED:
        chosen = [bool(won) for won, its in zip(above, kinds, strict=True) if its == kind]
        shares[f"pairs_{kind}"] = statistics.mean(chosen) if chosen else float("nan")
    return shares


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dev: Sequence[tuple[str, int]],
    held_out: Sequence[str] = (),
) -> dict[str, float]:
    """All figures of one judge; ranking only where there are held-out sentences."""
    scores = logits(model, tokenizer, [text for text, _ in dev])
    true = torch.tensor([label for _, label in dev])
    figures = {"macro_recall": macro_recall(scores.argmax(1), true)}
    figures["accuracy"] = (scores.argmax(1) == true).float().mean().item()
    if scores.shape[1] == 2:
        figures["matthews"] = matthews(scores.argmax(1), true)
    if held_out:
        figures |= ranked_pairs(model, tokenizer, held_out)
    return {name: round(value, 4) for name, value in figures.items()}


def held_out_sentences(paths: Sequence[str]) -> list[str]:
    """Sentences of the usual length in the held-out documents of all files."""
    documents = [document for path in paths for document in split_documents(read_documents(path))[1]]
    return list(sentences(documents, least_words=LEAST_WORDS, most_words=MOST_WORDS))


def main() -> None:
    """Prints the figures of a saved judge as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder or Hub id of the judge")
    parser.add_argument("--dev", required=True, help="CSV file with columns text,label")
    parser.add_argument("--documents", nargs="*", default=[], help="JSONL document files; held-out ones are used")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(args.judge, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.judge)
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    print(json.dumps(measure(model, tokenizer, read_rows(args.dev, labels), held_out_sentences(args.documents))))


if __name__ == "__main__":
    main()
