"""How a score is distributed before and after: a chart of both over the same bins. Leaves out: the page around it."""

from __future__ import annotations

import itertools
from xml.etree.ElementTree import SubElement

import numpy as np

from trl_rewards_plugin.charts.histograms import shared_bins
from trl_rewards_plugin.charts.svg import BOTTOM, HEIGHT, TOP, Frame, add_path, add_tooltip, frame, place, series_class


def draw_distributions(name: str, before: np.ndarray, after: np.ndarray, index: int) -> str:
    """The chart as SVG: both histograms with their means; counts start at 0.

    Args:
        name: Of the score.
        before, after: (N,) each; NaN where a text was not scored.
        index: Colour of `after`.
    """
    sides = {side: values[~np.isnan(values)] for side, values in (("before", before), ("after", after))}
    edges = shared_bins(before, after)
    counts = {side: np.histogram(values, edges)[0] for side, values in sides.items()}
    told = "; ".join(f"{side}: {len(values)} outputs{_mean(values)}" for side, values in sides.items())
    top = max(1, *(int(each.max()) for each in counts.values()))
    x_range = (float(edges[0]), float(edges[-1]))
    drawn = frame(name, f"{name} of an output", "outputs", x_range, (0.0, 1.08 * top), told, least_y_step=1.0)
    for side, values in sides.items():
        colour = "before" if side == "before" else series_class(index)
        _draw_bars(drawn, edges, counts[side], colour)
        if len(values):
            x = drawn.x(values.mean())
            add_path(drawn.root, np.array([x, x]), np.array([TOP, HEIGHT - BOTTOM]), f"average {colour}")
    _add_tooltips(drawn, edges, counts)
    return drawn.to_string()


def _draw_bars(drawn: Frame, edges: np.ndarray, counts: np.ndarray, colour: str) -> None:
    """The outline of the bars, filled."""
    x = np.repeat(drawn.x(edges), 2)
    y = drawn.y(np.concatenate([[0], np.repeat(counts, 2), [0]]))
    add_path(drawn.root, x, y, f"bars {colour}")


def _add_tooltips(drawn: Frame, edges: np.ndarray, counts: dict[str, np.ndarray]) -> None:
    places = drawn.x(edges)
    for place_of_bin, (left, right) in enumerate(itertools.pairwise(places)):
        attributes = {"class": "hover", "x": place(left), "width": place(right - left)}
        box = SubElement(drawn.root, "rect", {**attributes, "y": str(TOP), "height": str(HEIGHT - BOTTOM - TOP)})
        told = ", ".join(f"{side} {each[place_of_bin]}" for side, each in counts.items())
        add_tooltip(box, f"{edges[place_of_bin]:.3g} to {edges[place_of_bin + 1]:.3g}\noutputs: {told}")


def _mean(values: np.ndarray) -> str:
    return f", mean {values.mean():.3g}" if len(values) else ""
