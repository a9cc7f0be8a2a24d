"""The numbers behind every histogram: shared bins, counts and means. Leaves out: drawing."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Histogram:
    """How many of the scored outputs lie in each of E bins, (E,), and their mean; None where nothing was scored."""

    counts: np.ndarray
    mean: float | None


def histograms(*sides: np.ndarray) -> tuple[np.ndarray, list[Histogram]]:
    """(E + 1,) edges of equal bins, and over them the histogram of each side: (N,), NaN where nothing was scored."""
    scored = [values[~np.isnan(values)] for values in sides]
    edges = _edges(np.concatenate(scored), max(map(len, sides)))
    drawn = [
        Histogram(np.histogram(values, edges)[0], float(values.mean()) if len(values) else None) for values in scored
    ]
    return edges, drawn


def _edges(values: np.ndarray, outputs: int) -> np.ndarray:
    """8 to 24 bins, more where there are more `outputs`; one bin around a number that stands alone."""
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if low == high:
        half = 0.5 * max(abs(low), 1.0)
        return np.array([low - half, low + half])
    return np.linspace(low, high, int(np.clip(1.5 * np.sqrt(outputs), 8, 24)) + 1)
