"""The picture of an evaluation: how each score is distributed, before and after, and prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trl_rewards_plugin.charts.picture import new_figure, save_picture
from trl_rewards_plugin.charts.series import distinct, histograms
from trl_rewards_plugin.text import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE_COLOUR, AFTER_COLOUR, GAIN_COLOUR = "#7f7f7f", "#1f77b4", "#2ca02c"
ROW_HEIGHT = 2.6  # inches
HEAD_ROOM = 1.45  # height of an axes over its highest bar: the legend stands above bars and lines


def save_distributions(
    rows: Mapping[str, tuple[np.ndarray | None, np.ndarray]],
    gains: Mapping[str, Mapping[str, Any]],
    title: str,
    path: Path,
) -> None:
    """Draws one row a score: histograms of both sides over shared bins, and of the difference prompt by prompt.

    The counts start at 0, both sides have the same bins, and no prompt is left outside the axes. `rows`: name -> (N,)
    before or None, (N,) after, NaN where a text was not scored; `gains`: name -> what `paired_gain` gives.
    """
    drawn = distinct(rows)
    height, columns = max(len(drawn), 1), 2 if gains else 1
    figure = new_figure(5.4 * columns, 0.5 + ROW_HEIGHT * height)
    figure.set_layout_engine("constrained")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    grid = figure.subplots(height, columns, squeeze=False)
    if not drawn:
        words = "No metric has a score for each output."
        grid[0, 0].text(0.5, 0.5, words, ha="center", transform=grid[0, 0].transAxes)
    for axes, (names, (before, after)) in zip(grid, drawn.items(), strict=False):  # nothing drawn still has its axes
        _draw_sides(axes[0], listed(names), before, after)
        if columns == 2:
            _draw_differences(axes[1], listed(names), before, after, gains.get(names[0]))
    for axes in grid.flat:
        axes.yaxis.get_major_locator().set_params(integer=True)
    save_picture(figure, grid.flat, path)


def _draw_sides(axes: Axes, name: str, before: np.ndarray | None, after: np.ndarray) -> None:
    sides = [(after, "outputs" if before is None else "after", AFTER_COLOUR)]
    if before is not None:
        sides.insert(0, (before, "before", BEFORE_COLOUR))
    edges, drawn = histograms(*(values for values, _, _ in sides))
    for (_, label, colour), side in zip(sides, drawn, strict=True):
        mean = "not scored" if side.mean is None else f"mean {_short(side.mean)}"
        bars = axes.stairs(side.counts, edges, fill=True, linewidth=1.2, label=f"{label}, {mean}")
        bars.set(facecolor=(colour, 0.35), edgecolor=colour)
        if side.mean is not None:
            axes.axvline(side.mean, ymax=1 / HEAD_ROOM, color=colour, linewidth=1.6, linestyle="--")
    _finish(axes, f"{name}: score of each output", f"{name} (dashed: mean)", "outputs")


def _draw_differences(
    axes: Axes, name: str, before: np.ndarray | None, after: np.ndarray, gain: Mapping[str, Any] | None
) -> None:
    if before is None or gain is None or gain["n"] == 0:
        axes.set_visible(False)
        return
    edges, (differences,) = histograms(after - before)
    axes.stairs(differences.counts, edges, fill=True, linewidth=1, facecolor="0.8", edgecolor="0.5")
    axes.axvline(0, ymax=1 / HEAD_ROOM, color="0.1", linewidth=1.2, label="no change")
    low, high = gain["ci95"]
    if low is not None:
        interval = f"95% CI {_short(low, '+')} to {_short(high, '+')}"
        axes.axvspan(low, high, ymax=1 / HEAD_ROOM, color=GAIN_COLOUR, alpha=0.25, linewidth=0, label=interval)
    mean = gain["reward_gain"]
    label = f"mean {_short(mean, '+')}"
    axes.axvline(mean, ymax=1 / HEAD_ROOM, color=GAIN_COLOUR, linewidth=1.6, linestyle="--", label=label)
    improved = f"{100 * gain['share_improved']:.0f}% of {gain['n']} improved"
    _finish(axes, f"after - before, prompt by prompt: {improved}", f"difference in {name}", "prompts")


def _finish(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.set_ylim(0, axes.get_ylim()[1] * HEAD_ROOM)
    axes.legend(loc="upper left", frameon=False, fontsize=8)


def _short(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f" if abs(value) < 10 else f"{sign}.4g")
