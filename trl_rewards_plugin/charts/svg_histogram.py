"""How a score is distributed before and after, as SVG. Leaves out: the numbers (`binning.py`), the page around it."""

from __future__ import annotations

import itertools

import numpy as np

from trl_rewards_plugin.charts.binning import histograms
from trl_rewards_plugin.charts.svg import Chart, series_class


def draw_distributions(name: str, before: np.ndarray, after: np.ndarray, index: int) -> str:
    """The chart: both histograms over the same bins, with their means; counts start at 0.

    Args:
        name: Of the score.
        before, after: (N,) each; NaN where a text was not scored.
        index: Colour of `after`.
    """
    edges, both = histograms(before, after)
    sides = dict(zip(("before", "after"), both, strict=True))
    top = 1.08 * max(1, *(side.counts.max() for side in both))
    description = "; ".join(
        f"{label}: {side.counts.sum()} outputs" + ("" if side.mean is None else f", mean {side.mean:.3g}")
        for label, side in sides.items()
    )
    x_range = (float(edges[0]), float(edges[-1]))
    chart = Chart(name, description, f"{name} of an output", "outputs", x_range, (0.0, top), least_y_step=1.0)
    for label, side in sides.items():
        colour = "before" if label == "before" else series_class(index)
        outline = np.concatenate([[0], np.repeat(side.counts, 2), [0]])
        chart.add_line(f"bars {colour}", np.repeat(edges, 2), outline)
        if side.mean is not None:
            chart.add_line(f"average {colour}", np.array([side.mean] * 2), np.array([0.0, top]))
    for row, (low, high) in enumerate(itertools.pairwise(edges)):
        counts = ", ".join(f"{label} {side.counts[row]}" for label, side in sides.items())
        chart.add_box("hover", low, high, [f"{low:.3g} to {high:.3g}", f"outputs: {counts}"])
    return chart.to_svg()
