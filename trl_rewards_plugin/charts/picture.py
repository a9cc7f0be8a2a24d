"""What all matplotlib pictures share: a figure without global state, quiet axes, the same bytes for the same data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trl_rewards_plugin.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """A figure of that many inches. A layout engine would draw it twice: set one only where labels vary much."""
    # The object interface: pyplot would keep global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save_picture(figure: Figure, axes: Iterable[Axes], path: Path) -> None:
    """Writes the PNG whole or not at all, its `axes` with a grid and without a box."""
    for each in axes:
        each.grid(alpha=0.25)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        # Without its own metadata matplotlib writes its version, and equal runs would differ after an upgrade.
        figure.savefig(unfinished, dpi=120, format="png", metadata={"Software": None})
