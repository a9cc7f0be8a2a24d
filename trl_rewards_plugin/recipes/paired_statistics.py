"""Pure numbers over outputs: means, best of n, sentence splitting.

Leaves out models, rewards, paired gains (`metrics/paired_gain.py`) and text metrics (`metrics/text_metrics.py`).

Shapes: N outputs, one for each of N held-out prompts.
"""

import re

import numpy as np

# A sentence ends at . ! or ?, with closing quotes or brackets, before white space.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+")


def mean_scored(values: np.ndarray) -> float | None:
    """Mean of (N,) without its NaNs, which stand for texts that were not scored; None if nothing is left."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else None


def spread_scored(values: np.ndarray) -> float | None:
    """Standard deviation (N - 1 in the denominator) of (N,) without its NaNs; None for fewer than two."""
    scored = values[~np.isnan(values)]
    return float(scored.std(ddof=1)) if len(scored) > 1 else None


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`: cut after . ! or ? (and closing quotes or brackets) where white space follows.

    Line breaks end a sentence too. A simple rule: it also cuts after "Mr." and never inside "e.g.this".
    """
    sentences = []
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            sentences.append(line[start : match.end()].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


def best_of(totals: np.ndarray, num_samples: int) -> np.ndarray:
    """(B,) index into `totals` (B * num_samples,), prompt by prompt, of each prompt's highest total."""
    totals = np.asarray(totals, dtype=np.float64)
    if totals.ndim != 1 or len(totals) % num_samples:
        raise ValueError(f"totals must be (B * {num_samples},), got {totals.shape}")
    grouped = totals.reshape(-1, num_samples)
    # An unscored sample (NaN) is never the best one.
    best: np.ndarray = np.where(np.isnan(grouped), -np.inf, grouped).argmax(axis=1)
    return best + np.arange(len(grouped)) * num_samples
