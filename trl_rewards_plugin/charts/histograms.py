"""The picture of an evaluation: how each score is distributed, before and after, and prompt by prompt.

Leaves out: computing any number but the bins of a histogram.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trl_rewards_plugin.runs.writing import replacing

BEFORE_COLOUR, AFTER_COLOUR, GAIN_COLOUR = "#7f7f7f", "#1f77b4", "#2ca02c"
ROW_HEIGHT = 2.6  # inches
HEAD_ROOM = 1.45
"""Height of an axes over its highest bar: the legend stands above bars and lines."""


def save_distributions(
    rows: Mapping[str, tuple[np.ndarray | None, np.ndarray]],
    gains: Mapping[str, Mapping[str, Any]],
    title: str,
    path: Path,
) -> None:
    """Draws one row a score: histograms of both sides over shared bins, and of the difference prompt by prompt.

    The counts start at 0, both sides have the same bins, and no prompt is left outside the axes.

    Args:
        rows: Name -> (N,) before or None, (N,) after; NaN where a text was not scored.
        gains: Name -> what `paired_gain` gives; where there is a before.
        title: What is compared.
        path: Of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if gains else 1
    # The object interface: pyplot would keep global state and may look for a display.
    figure = Figure(figsize=(5.4 * columns, 0.5 + ROW_HEIGHT * max(len(rows), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    grid = figure.subplots(max(len(rows), 1), columns, squeeze=False)
    if not rows:
        grid[0, 0].text(
            0.5, 0.5, "No metric has a score for each output.", ha="center", transform=grid[0, 0].transAxes
        )
    for place, (name, (before, after)) in enumerate(rows.items()):
        _draw_sides(grid[place, 0], name, before, after)
        if columns == 2:
            _draw_differences(grid[place, 1], name, before, after, gains.get(name))
    for axes in grid.flat:
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.get_major_locator().set_params(integer=True)
    with replacing(path) as unfinished:
        # Without its own metadata matplotlib writes its version, and equal runs would differ after an upgrade.
        figure.savefig(unfinished, dpi=120, format="png", metadata={"Software": None})


def shared_bins(*sides: np.ndarray) -> np.ndarray:
    """Edges of equal bins that hold every number of every side, NaNs aside: 8 to 24, more where there are more."""
    values = np.concatenate(sides)
    values = values[~np.isnan(values)]
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if low == high:
        half = 0.5 * max(abs(low), 1.0)
        return np.array([low - half, low + half])
    bins = int(np.clip(1.5 * np.sqrt(max(map(len, sides))), 8, 24))
    return np.linspace(low, high, bins + 1)


def _draw_sides(axes: Any, name: str, before: np.ndarray | None, after: np.ndarray) -> None:
    sides = [(after, "outputs" if before is None else "after", AFTER_COLOUR)]
    if before is not None:
        sides.insert(0, (before, "before", BEFORE_COLOUR))
    edges = shared_bins(*(values for values, _, _ in sides))
    for values, label, colour in sides:
        scored = values[~np.isnan(values)]
        mean = f", mean {_short(scored.mean())}" if len(scored) else ", not scored"
        axes.hist(scored, edges, histtype="stepfilled", alpha=0.35, color=colour, label=f"{label}{mean}")
        axes.hist(scored, edges, histtype="step", color=colour, linewidth=1.2)
        if len(scored):
            axes.axvline(scored.mean(), ymax=1 / HEAD_ROOM, color=colour, linewidth=1.6, linestyle="--")
    axes.set_title(f"{name}: score of each output", fontsize=10, loc="left")
    axes.set_xlabel(f"{name} (dashed: mean)", fontsize=9)
    axes.set_ylabel("outputs", fontsize=9)
    _legend(axes)


def _draw_differences(
    axes: Any, name: str, before: np.ndarray | None, after: np.ndarray, gain: Mapping[str, Any] | None
) -> None:
    if before is None or gain is None or gain["n"] == 0:
        axes.set_visible(False)
        return
    difference = (after - before)[~np.isnan(after - before)]
    axes.hist(difference, shared_bins(difference), color="0.8", edgecolor="0.5", histtype="stepfilled")
    axes.axvline(0, ymax=1 / HEAD_ROOM, color="0.1", linewidth=1.2, label="no change")
    low, high = gain["ci95"]
    interval = f"95 % interval {_short(low, '+')} to {_short(high, '+')}"
    axes.axvspan(low, high, ymax=1 / HEAD_ROOM, color=GAIN_COLOUR, alpha=0.25, linewidth=0, label=interval)
    mean = f"mean {_short(gain['reward_gain'], '+')}"
    place = gain["reward_gain"]
    axes.axvline(place, ymax=1 / HEAD_ROOM, color=GAIN_COLOUR, linewidth=1.6, linestyle="--", label=mean)
    improved = f"{100 * gain['share_improved']:.0f} % of {gain['n']} improved"
    axes.set_title(f"after - before, prompt by prompt: {improved}", fontsize=10, loc="left")
    axes.set_xlabel(f"difference in {name}", fontsize=9)
    axes.set_ylabel("prompts", fontsize=9)
    _legend(axes)


def _legend(axes: Any) -> None:
    axes.set_ylim(0, axes.get_ylim()[1] * HEAD_ROOM)
    axes.legend(loc="upper left", frameon=False, fontsize=8)


def _short(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f" if abs(value) < 10 else f"{sign}.4g")
