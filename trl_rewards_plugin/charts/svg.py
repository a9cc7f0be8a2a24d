"""An SVG chart: axes over given ranges, and whatever marks are added.

A template with escaping keeps it well-formed whatever a run is called. Colours and letter sizes are classes that the
page's style sheet knows: one picture serves light and dark. The ticks are our own: those of matplotlib would make a
page that needs nothing else of it start slowly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from trl_rewards_plugin.text import one_line

WIDTH, HEIGHT = 360, 230  # of the view box; about the CSS pixels of a narrow phone, so that letters keep their size
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 30, 40
COLOURS = 8  # series have the classes s0 to s7; from the ninth on they come again, dashed


@dataclass
class Chart:
    """A chart; `description` says in words what it shows, where it cannot be seen."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    least_y_step: float = 0.0  # between two ticks of the y axis
    # SVG elements, the later above the earlier: tag, attributes, and lines of a tooltip.
    marks: list[tuple[str, Mapping[str, Any], Sequence[str]]] = field(default_factory=list)

    def x(self, values: np.ndarray | float) -> np.ndarray:
        """Places of `values` from left to right, of their shape."""
        return np.asarray(np.interp(values, self.x_range, (LEFT, WIDTH - RIGHT)))

    def y(self, values: np.ndarray | float) -> np.ndarray:
        """Places of `values`, of their shape; a picture's height grows downwards."""
        return np.asarray(np.interp(values, self.y_range, (HEIGHT - BOTTOM, TOP)))

    def add_line(self, kind: str, x: np.ndarray, y: np.ndarray) -> None:
        points = " ".join(f"{place(left)},{place(top)}" for left, top in zip(self.x(x), self.y(y), strict=True))
        self.marks.append(("polyline", {"class": kind, "points": points}, ()))

    def add_dot(self, kind: str, x: float, y: float, radius: float, tooltip: Sequence[str] = ()) -> None:
        attributes = {"class": kind, "cx": place(self.x(x)), "cy": place(self.y(y)), "r": radius}
        self.marks.append(("circle", attributes, tooltip))

    def add_box(self, kind: str, low: float, high: float, tooltip: Sequence[str]) -> None:
        """A box of class `kind` from `low` to `high`, as high as the chart."""
        left, right = self.x(np.array([low, high]))
        attributes = {"class": kind, "x": place(left), "width": place(right - left)}
        self.marks.append(("rect", attributes | {"y": TOP, "height": HEIGHT - BOTTOM - TOP}, tooltip))

    def to_svg(self) -> str:
        x_ticks, y_ticks = nice_ticks(*self.x_range), nice_ticks(*self.y_range, 8, self.least_y_step)
        return _template().render(
            chart=self,
            x_ticks=zip(self.x(np.array(x_ticks)), tick_labels(x_ticks), strict=True),
            y_ticks=zip(self.y(np.array(y_ticks)), tick_labels(y_ticks), strict=True),
        )


def series_class(index: int) -> str:
    """Classes of the colour, and of the dashes from the ninth series on."""
    return f"s{index % COLOURS}" + (" again" if index >= COLOURS else "")


def place(value: float | np.ndarray) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{float(value):.1f}".removesuffix(".0")


def padded_range(low: float, high: float) -> tuple[float, float]:
    """A range that holds both numbers with a little room, and is never empty."""
    largest = max(abs(low), abs(high))
    # Between numbers that differ, at least so much that ticks of 5 digits tell them apart.
    room = max(0.05 * (high - low), 1e-3 * largest) if low < high else 0.5 * max(largest, 1.0)
    return low - room, high + room


def nice_ticks(low: float, high: float, most: int = 6, least_step: float = 0.0) -> list[float]:
    """At most `most` and at least one multiple of 1, 2 or 5 times a power of ten, at least `least_step` apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most and step >= least_step:
            break
    return [count * step for count in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Evenly spaced ticks as short as tells them apart: `0.2`, `1,500`, `20k`, `3M`, `2e-06`, `1e+12`."""
    largest = max(map(abs, ticks))
    divisor, unit = (1e6, "M") if largest >= 1e6 else (1e3, "k") if largest >= 1e4 else (1.0, "")
    step = (ticks[1] - ticks[0] if len(ticks) > 1 else largest or 1.0) / divisor
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if (decimals > 4 and largest < 0.01) or largest >= 1e12:
        return [f"{tick:.8g}" for tick in ticks]
    labels = [f"{tick / divisor:,.{decimals}f}" for tick in ticks]
    return [label + unit if float(label.replace(",", "")) else "0" for label in labels]


def environment_of(folder: Path, *, autoescape: bool = True) -> Environment:
    """Templates in `folder`; whatever they are given is escaped, unless they bring an escaping of their own."""
    environment = Environment(loader=FileSystemLoader(folder), autoescape=autoescape, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment


@cache
def _template() -> Template:
    environment = environment_of(Path(__file__).parent)
    # XML holds no control characters, not even escaped.
    environment.filters |= {"clean": one_line, "place": place}
    environment.globals |= {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM
    }  # fmt: skip
    return environment.get_template("chart.svg.jinja")
