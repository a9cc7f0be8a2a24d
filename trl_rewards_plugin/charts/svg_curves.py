"""Curves over training as SVG: a chart per quantity, all runs in it. Leaves out: the numbers (`series.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trl_rewards_plugin.charts.axis import padded_range
from trl_rewards_plugin.charts.series import Panel, Series, thinned
from trl_rewards_plugin.charts.svg import Chart, series_class

MOST_POINTS = 600  # of a line: more than a screen tells apart
MOST_TOOLTIPS = 80  # of a line


def draw_curves(panel: Panel, series: Sequence[Series]) -> str:
    """The chart: rollouts as thin lines with their trailing mean in bold, evaluations as dots."""
    values, episodes = (np.concatenate([getattr(each, name) for each in series]) for name in ("values", "episodes"))
    description = "; ".join(
        f"{_full_name(each)}: {each.values[0]:.3g} at step {each.steps[0]:.0f}, "
        f"{each.values[-1]:.3g} at step {each.steps[-1]:.0f}"
        for each in series
    )
    x_range = (0.0, max(float(episodes.max()), 1.0))
    y_range = padded_range(float(values.min()), float(values.max()))
    chart = Chart(panel.title, description, "episodes (responses)", panel.unit, x_range, y_range)
    for each in series:
        _add_series(chart, each)
    for each in series:  # above all lines, so that each can be pointed at
        _add_tooltips(chart, each)
    return chart.to_svg()


def _full_name(series: Series) -> str:
    return f"{series.name}, held-out prompts" if series.held_out else series.name


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
        lines = [_full_name(series), f"step {step:.0f} ({episode:,.0f} episodes): {value:.4g}"]
        if series.window > 1:
            lines.append(f"mean of the last {series.window}: {means[row]:.4g}")
        chart.add_dot("hover", episode, means[row], 6, lines)
