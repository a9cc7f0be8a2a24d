"""The charts of a page as SVG: curves over training, all runs in one, and how a score is distributed before and after.

Leaves out: the numbers (`series.py`), the page around them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trl_rewards_plugin.charts.series import Panel, Series, histograms, thinned
from trl_rewards_plugin.charts.svg import Chart, padded_range, series_class

MOST_POINTS = 600  # of a line: more than a screen tells apart
MOST_TOOLTIPS = 80  # of a line


def draw_curves(panel: Panel, series: Sequence[Series]) -> str:
    """The chart: rollouts as thin lines with their trailing mean in bold, evaluations as dots.

    Over episodes, or over steps where one of the logs counts no episodes.
    """
    x_label, unit = "episodes (responses)", panel.unit
    if any(each.by_step for each in series):
        series = [replace(each, episodes=each.steps, by_step=True) for each in series]
        x_label, unit = "step", unit.replace("rollout", "step")
    values, episodes = (np.concatenate([getattr(each, name) for each in series]) for name in ("values", "episodes"))
    description = "; ".join(
        f"{each.full_name}: {each.values[0]:.3g} at step {each.steps[0]:.0f}, "
        f"{each.values[-1]:.3g} at step {each.steps[-1]:.0f}"
        for each in series
    )
    x_range = (0.0, max(float(episodes.max()), 1.0))
    y_range = padded_range(float(values.min()), float(values.max()))
    chart = Chart(panel.title, description, x_label, unit, x_range, y_range)
    for each in series:
        _add_series(chart, each)
    for each in series:  # above all lines, so that each can be pointed at
        _add_tooltips(chart, each)
    return chart.to_svg()


def _add_series(chart: Chart, series: Series) -> None:
    colour, values = series_class(series.index), series.values
    if series.held_out or len(values) == 1:
        for row in thinned(values, MOST_POINTS):
            chart.add_dot(f"dot {colour}", series.episodes[row], values[row], 3.5)
        return
    for kind, line in (("each", values), ("mean", series.means)):
        if kind == "mean" or series.window > 1:
            kept = thinned(line, MOST_POINTS)
            chart.add_line(f"{kind} {colour}", series.episodes[kept], line[kept])


def _add_tooltips(chart: Chart, series: Series) -> None:
    means = series.means
    for row in np.unique(np.linspace(0, len(means) - 1, MOST_TOOLTIPS).round().astype(int)):
        step, episode, value = series.steps[row], series.episodes[row], series.values[row]
        place = f"step {step:.0f}" + ("" if series.by_step else f" ({episode:,.0f} episodes)")
        lines = [series.full_name, f"{place}: {value:.4g}"]
        if series.window > 1:
            lines.append(f"mean of the last {series.window}: {means[row]:.4g}")
        chart.add_dot("hover", episode, means[row], 6, lines)


def draw_distributions(name: str, before: np.ndarray, after: np.ndarray, index: int) -> str:
    """The chart of a score, (N,) `before` and `after`, NaN where a text was not scored.

    Both histograms have the same bins, and their means; counts start at 0. `index` is the colour of `after`.
    """
    edges, both = histograms(before, after)
    sides = dict(zip(("before", "after"), both, strict=True))
    top = 1.08 * max(1, *(side.counts.max() for side in both))
    description = "; ".join(
        f"{label}: {side.counts.sum()} outputs" + ("" if side.mean is None else f", mean {side.mean:.3g}")
        for label, side in sides.items()
    )
    x_range = (float(edges[0]), float(edges[-1]))
    chart = Chart(name, description, "score of an output", "outputs", x_range, (0.0, top), least_y_step=1.0)
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
