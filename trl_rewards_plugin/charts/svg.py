"""The frame that all charts share: an SVG element tree with axes, ticks, grid and words. Leaves out: the data's marks.

A tree, not joined strings: whatever a run is called, the picture stays well-formed. Colours and letter sizes are
classes that the page's style sheet knows, so that one picture serves light and dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from trl_rewards_plugin.charts.axis import Scale, nice_ticks, tick_labels
from trl_rewards_plugin.text import one_line

WIDTH, HEIGHT = 360, 230  # of the view box; about the CSS pixels of a narrow phone, so that letters keep their size
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 30, 40
COLOURS = 8
"""Series have the classes s0 to s7; from the ninth on they come again, dashed."""


@dataclass(frozen=True)
class Frame:
    """An SVG with its axes drawn.

    Attributes:
        root: The `svg` element.
        x, y: From numbers to places in it.
    """

    root: Element
    x: Scale
    y: Scale

    def to_string(self) -> str:
        """The markup."""
        return ElementTree.tostring(self.root, encoding="unicode")


def frame(
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    told: str,
    *,
    least_y_step: float = 0.0,
) -> Frame:
    """Axes over the given ranges.

    Args:
        title: What the picture is called where it cannot be seen.
        told: What it shows, in words, likewise.
        least_y_step: Between two ticks of the y axis.
    """
    root = Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": clean(f"{title}. {told}")})
    x, y = Scale(*x_range, LEFT, WIDTH - RIGHT), Scale(*y_range, HEIGHT - BOTTOM, TOP)
    ticks = nice_ticks(*y_range, most=8, least_step=least_y_step)
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        height = place(y(tick))
        SubElement(root, "path", {"class": "grid", "d": f"M{LEFT} {height}H{WIDTH - RIGHT}"})
        add_text(root, label, LEFT - 6, float(height) + 4, anchor="end")
    ticks = nice_ticks(*x_range)
    for tick, label in zip(ticks, tick_labels(ticks), strict=True):
        SubElement(root, "path", {"class": "axis", "d": f"M{place(x(tick))} {HEIGHT - BOTTOM}v4"})
        add_text(root, label, float(x(tick)), HEIGHT - BOTTOM + 18, anchor="middle")
    SubElement(root, "path", {"class": "axis", "d": f"M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"})
    add_text(root, y_label, 4, 14)
    add_text(root, x_label, WIDTH - RIGHT, HEIGHT - 4, anchor="end")
    return Frame(root, x, y)


def add_text(parent: Element, text: str, x: float, y: float, *, anchor: str = "start") -> None:
    """Words at a place."""
    SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}).text = clean(text)


def add_path(parent: Element, x: np.ndarray, y: np.ndarray, kind: str) -> Element:
    """A line through (P,) places."""
    points = " ".join(f"{place(left)},{place(top)}" for left, top in zip(x, y, strict=True))
    return SubElement(parent, "polyline", {"class": kind, "points": points})


def add_tooltip(parent: Element, text: str) -> None:
    """What the browser shows when the pointer rests on `parent`."""
    SubElement(parent, "title").text = "\n".join(clean(line) for line in text.split("\n"))


def series_class(index: int) -> str:
    """Classes of the colour, and of the dashes from the ninth series on."""
    return f"s{index % COLOURS}" + (" again" if index >= COLOURS else "")


def place(value: float | np.ndarray) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{float(value):.1f}".removesuffix(".0")


def clean(text: str) -> str:
    """`text` on one line, without the control characters that XML cannot hold."""
    return one_line(text)
