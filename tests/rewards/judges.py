"""Tiny classifiers that this folder's tests share; each is built once a run and read only."""

import functools
import tempfile
from pathlib import Path

from tests.tiny_models import tiny_classifier

_FOLDER = tempfile.TemporaryDirectory(prefix="judges-")

TEXTS = [
    "The cat sleeps.",
    "hello",
    "",
    "I love you!",
    "A much longer sentence, with commas, that goes on and on and on until nobody remembers how it once began.",
    "naïve 日本語 🙂",
    "hello",
    "a",
]


@functools.cache
def judge(name: str = "roberta", labels: tuple[str, ...] = ("bad", "good"), **options) -> Path:
    """Folder of a tiny classifier, under `name`; options as in `tiny_classifier`."""
    return tiny_classifier(Path(_FOLDER.name) / f"{name}-{'-'.join(labels)}", labels, **options)


def sentiment() -> Path:
    """A three-label BERT with other weights than `judge()`."""
    return judge("bert", ("negative", "neutral", "positive"), model_type="bert", seed=1)
