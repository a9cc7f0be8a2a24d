"""Pure numbers over outputs: paired bootstrap, means, best of n, sentence splitting.

Leaves out models, rewards and what guards against their misuse (`ppo/guards.py`).

Shapes: N outputs, one for each of N held-out prompts.
"""

import re

import numpy as np

# A sentence ends at . ! or ?, with closing quotes or brackets, before white space.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+")


def paired_bootstrap(
    before: np.ndarray, after: np.ndarray, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Mean of `after - before` and its percentile bootstrap interval, resampling the N pairs.

    With d = after - before (N,): mean(d), and the (1 - level) / 2 and (1 + level) / 2 quantiles of mean(d[i]) over
    `resamples` draws of N indices i with replacement. Efron & Tibshirani, An Introduction to the Bootstrap, 13.3.

    Args:
        before: (N,) one number a prompt.
        after: (N,) of the same prompts in the same order.
        resamples: Draws.
        seed: Of a generator of its own; the global one is left alone.
        level: Share of the resampled means inside the interval.
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise ValueError(f"before and after must be (N,) with the same N >= 1, got {before.shape} and {after.shape}")
    difference = after - before
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    # One resample at a time: (resamples, N) indices at once would take 80 MB at N = 1,000.
    for row in range(resamples):
        means[row] = difference[generator.integers(0, len(difference), len(difference))].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), (float(low), float(high))


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
    return np.where(np.isnan(grouped), -np.inf, grouped).argmax(axis=1) + np.arange(len(grouped)) * num_samples
