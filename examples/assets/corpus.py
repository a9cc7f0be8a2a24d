"""The texts that the bundled models learn from, and which of them are kept aside.

A document file is JSONL: ``{"id": str, "paragraphs": [[sentence, ...], ...]}``. Every asset script asks
`is_held_out`, so no bundled model, judge or tiny T5, has seen a document that the held-out prompts come from. A
file of pairs is CSV, ``kind,good,bad``. Leaves out: labelled rows, which `measure_judge.read_rows` reads.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_TENTH = 0  # documents whose hash falls into this tenth are never trained on
HELD_OUT_PAIRS = 20  # of each kind, its last in the file


@dataclass(frozen=True)
class Document:
    """One document: `paragraphs` are lists of sentences, in reading order."""

    id: str
    paragraphs: list[list[str]]


def read_documents(path: str | Path) -> list[Document]:
    """All documents of a JSONL file."""
    with open(path, encoding="utf-8") as lines:
        return [Document(**json.loads(line)) for line in lines]


def is_held_out(document_id: str) -> bool:
    """True for about one document in ten, by a hash of its id alone: no seed, no file order."""
    return hashlib.sha256(document_id.encode()).digest()[0] % 10 == HELD_OUT_TENTH


def split_documents(documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents."""
    training = [document for document in documents if not is_held_out(document.id)]
    held_out = [document for document in documents if is_held_out(document.id)]
    return training, held_out


def sentences(documents: list[Document], *, least_words: int = 1, most_words: int = 10_000) -> Iterator[str]:
    """Every sentence whose count of white-space words lies in [least_words, most_words]."""
    for document in documents:
        for paragraph in document.paragraphs:
            for sentence in paragraph:
                if least_words <= len(sentence.split()) <= most_words:
                    yield sentence


def read_pairs(path: str | Path, each: int | None = None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(training, held-out) pairs of a good and a bad sentence, kind by kind; for training the first `each` of one."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    with open(path, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            kinds.setdefault(row["kind"], []).append((row["good"], row["bad"]))
    training = [pair for pairs in kinds.values() for pair in pairs[:-HELD_OUT_PAIRS][:each]]
    held_out = [pair for pairs in kinds.values() for pair in pairs[-HELD_OUT_PAIRS:]]
    return training, held_out


def in_half(text: str, half: int | None) -> bool:
    """Whether `text` belongs to this half, by its hash alone; to every judge without a half."""
    return half is None or hashlib.sha256(text.encode()).digest()[1] % 2 == half


def plain(tweet: str) -> str:
    """A tweet as ordinary text has it: "@user" names someone, a hashtag is a word."""
    return " ".join(tweet.replace("@user", "someone").replace("#", "").split())
