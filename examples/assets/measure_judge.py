"""Measures a judge: correlation, recall, calibration, verdicts on real sentences, good ones ranked above bad ones.

    python measure_judge.py --judge FOLDER --dev dev.csv
    python measure_judge.py --judge FOLDER --dev dev.csv --documents ewt.jsonl gum.jsonl --pairs blimp.csv

Of the documents and pairs only those are read that `corpus` keeps aside; ranking needs two labels, bad,good. The judge
runs in float32, whatever its file holds. Leaves out: training.
"""

import argparse
import csv
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from corpus import plain, read_documents, read_pairs, sentences, split_documents
from corrupt import MEASURED, corrupt
from fitting import precision
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trl_rewards_plugin.errors import InputError

LEAST_WORDS, MOST_WORDS = 4, 40  # of a real sentence, in training and in the measurement
PAIRS = 1000
BINS = 10  # of confidence


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


@torch.inference_mode()
def logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch: int = 32,
    bf16: bool = False,
) -> torch.Tensor:
    """[len(texts), labels] in the order of `texts`; batches are of like lengths, the model is left in eval mode."""
    model.eval()
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    out = torch.empty(len(texts), model.config.num_labels)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer([texts[row] for row in rows], padding=True, truncation=True, return_tensors="pt")
        with precision(bf16):
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


def calibration_error(scores: torch.Tensor, true: torch.Tensor) -> float:
    """Expected calibration error: |accuracy - confidence| in BINS bins, by rows (Guo et al., arXiv 1706.04599).

    Args:
        scores: (N, labels) logits.
        true: (N,) label indices.
    """
    confidence, predicted = scores.softmax(1).max(1)
    gap = (predicted == true).float() - confidence
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    return torch.zeros(BINS).index_add(0, bins, gap).abs().sum().item() / len(true)


def spoilt_pairs(real: Sequence[str]) -> list[tuple[str, str]]:
    """PAIRS of a real sentence and a spoilt copy, whose kinds are MEASURED in turn."""
    rng = random.Random(0)
    drawn = rng.sample(list(real), min(PAIRS, len(real)))
    return [(text, corrupt(text, rng, (), {MEASURED[row % len(MEASURED)]: 1.0})) for row, text in enumerate(drawn)]


def ranked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]
) -> torch.Tensor:
    """(pairs,) whether the first sentence's last logit is ahead of its first logit by more than the second's."""
    scores = logits(model, tokenizer, [text for pair in pairs for text in pair])
    margins = scores[:, -1] - scores[:, 0]
    return margins[::2] > margins[1::2]


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dev: Sequence[tuple[str, int]],
    held_out: Mapping[str, Sequence[str]] = MappingProxyType({}),
    pairs: Sequence[tuple[str, str]] = (),
) -> dict[str, float]:
    """All figures of one judge; `held_out` holds sentences by the name of their file, `pairs` (good, bad) ones."""
    scores = logits(model, tokenizer, [text for text, _ in dev])
    true = torch.tensor([label for _, label in dev])
    predicted, two = scores.argmax(1), scores.shape[1] == 2
    figures = {"macro_recall": macro_recall(predicted, true), "accuracy": (predicted == true).float().mean().item()}
    figures["calibration_error"] = calibration_error(scores, true)
    if two:
        figures["matthews"] = matthews(predicted, true)
    began = time.process_time()
    for name, texts in held_out.items():
        verdicts = logits(model, tokenizer, texts).argmax(1)
        figures |= {
            f"{name}_{label}": (verdicts == row).float().mean() for row, label in model.config.id2label.items()
        }
    if held_out:
        figures["cpu_ms"] = 1000 * (time.process_time() - began) / sum(map(len, held_out.values()))
    if held_out and two:
        above = ranked(model, tokenizer, spoilt_pairs([text for texts in held_out.values() for text in texts]))
        figures["spoilt_pairs"] = above.float().mean()
        figures |= {
            f"spoilt_pairs_{kind}": above[at :: len(MEASURED)].float().mean() for at, kind in enumerate(MEASURED)
        }
    if pairs:
        figures["pairs"] = ranked(model, tokenizer, pairs).float().mean()
    return {name: round(float(value), 4) for name, value in figures.items()}


def held_out_sentences(paths: Sequence[str]) -> dict[str, list[str]]:
    """Sentences of the usual length in the held-out documents of each file, by the file's name."""
    limits = {"least_words": LEAST_WORDS, "most_words": MOST_WORDS}
    return {Path(path).stem: list(sentences(split_documents(read_documents(path))[1], **limits)) for path in paths}


def main() -> None:
    """Prints the figures of a saved judge as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder or Hub id of the judge")
    parser.add_argument("--dev", required=True, help="CSV file with columns text,label")
    parser.add_argument("--documents", nargs="*", default=[], help="JSONL document files; held-out ones are used")
    parser.add_argument("--pairs", help="CSV file with columns kind,good,bad; held-out ones are used")
    parser.add_argument("--tweets", action="store_true", help="measure on tweets without their signs")
    args = parser.parse_args()
    model = AutoModelForSequenceClassification.from_pretrained(args.judge, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.judge)
    dev = read_rows(args.dev, [model.config.id2label[index] for index in range(model.config.num_labels)])
    if args.tweets:
        dev = [(plain(text), label) for text, label in dev]
    pairs = read_pairs(args.pairs)[1] if args.pairs else []
    print(json.dumps(measure(model, tokenizer, dev, held_out_sentences(args.documents), pairs)))


if __name__ == "__main__":
    main()
