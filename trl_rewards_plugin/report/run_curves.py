"""Curves over training: one chart a quantity, all runs in it. Leaves out: the page around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import SubElement

import numpy as np

from trl_rewards_plugin.charts.axis import padded_range
from trl_rewards_plugin.charts.curves import moving_average, rollout_rows
from trl_rewards_plugin.charts.svg import Frame, add_path, add_tooltip, frame, place, series_class
from trl_rewards_plugin.runs.read import Run

REWARD = "objective/scores"
MOST_POINTS = 600  # of a line: more than a screen tells apart
MOST_TOOLTIPS = 80  # of a line


@dataclass(frozen=True)
class Panel:
    """A quantity.

    Attributes:
        title, unit: In words.
        key: In a rollout's row of the log.
        eval_key: In an evaluation's row, where there is one.
    """

    title: str
    unit: str
    key: str
    eval_key: str | None = None


@dataclass(frozen=True)
class Series:
    """Numbers of one run over training.

    Attributes:
        name: Of the run.
        index: Its colour.
        steps, episodes, values: (R,) each, finite.
        held_out: Whether it was measured on held-out prompts, and not on a rollout.
    """

    name: str
    index: int
    steps: np.ndarray
    episodes: np.ndarray
    values: np.ndarray
    held_out: bool = False


def panels(runs: Sequence[Run]) -> list[Panel]:
    """Reward, each component, KL, entropy and length, as far as some run logged them."""
    keys = dict.fromkeys(key for run in runs for row in run.log for key in row)
    parts = [key for key in keys if key.startswith("rewards/") and key.endswith("/mean")]
    components = [
        Panel(key.split("/", 1)[1].removesuffix("/mean"), "mean of a rollout", key, f"eval_{key}")
        for key in parts
        if not all(_same(run.log, key, REWARD) for run in runs)
    ]
    known = [
        Panel("Reward", "mean of a rollout", REWARD, "eval_reward"),
        *components,
        Panel("KL to the start", "nats a response", "objective/kl", "eval_kl"),
        Panel("Entropy", "nats a token", "objective/entropy"),
        Panel("Length of a response", "tokens", "tokens/responses_len_mean", "eval_length"),
    ]
    return [panel for panel in known if panel.key in keys]


def _same(log: Sequence[Mapping[str, Any]], key: str, other: str) -> bool:
    """Whether the log says the same under both keys wherever it has the first: the total is logged by its name too."""
    rows = [row for row in log if key in row]
    first, second = ([row.get(name, math.nan) for row in rows] for name in (key, other))
    return np.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True)


def series_of(run: Run, index: int, panel: Panel) -> list[Series]:
    """The run's numbers for `panel`: of rollouts, and of evaluations where it has any."""
    rollouts = rollout_rows(run.log)
    # A rollout has equally many episodes all through a run; an evaluation's row tells only its step.
    a_step = rollouts[-1].get("episode", rollouts[-1]["step"]) / rollouts[-1]["step"] if rollouts else 1.0
    found = []
    for key, held_out in ((panel.key, False), (panel.eval_key, True)):
        if key is None:
            continue
        pairs = np.array([(row["step"], row[key]) for row in run.log if key in row], dtype=np.float64).reshape(-1, 2)
        steps, values = pairs[np.isfinite(pairs[:, 1])].T
        if len(steps):
            found.append(Series(run.name, index, steps, steps * a_step, values, held_out))
    return found


def draw_curves(panel: Panel, series: Sequence[Series]) -> str:
    """The chart as SVG: rollouts as thin lines with their trailing mean in bold, evaluations as dots."""
    values, episodes = (np.concatenate([getattr(each, name) for each in series]) for name in ("values", "episodes"))
    told = "; ".join(
        f"{each.name}{', held-out prompts' if each.held_out else ''}: "
        f"{each.values[0]:.3g} at step {each.steps[0]:.0f}, {each.values[-1]:.3g} at step {each.steps[-1]:.0f}"
        for each in series
    )
    drawn = frame(
        panel.title,
        "episodes (responses)",
        panel.unit,
        (0.0, max(float(episodes.max()), 1.0)),
        padded_range(float(values.min()), float(values.max())),
        told,
    )
    for each in series:
        (_draw_dots if each.held_out else _draw_line)(drawn, each)
    for each in series:  # above all lines, so that each can be pointed at
        _add_tooltips(drawn, each)
    return drawn.to_string()


def smoothing_window(rollouts: int) -> int:
    """Rollouts that the bold line is a mean of: the last tenth."""
    return max(1, rollouts // 10)


def thinned(values: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """Indices of at most `most` of (R,) values: the ends, and the least and greatest of equal stretches between."""
    if len(values) <= most:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), (most - 2) // 2)
    extremes = [stretch[pick(values[stretch])] for stretch in stretches for pick in (np.argmin, np.argmax)]
    return np.unique([0, *extremes, len(values) - 1])


def _draw_line(drawn: Frame, series: Series) -> None:
    colour, window = series_class(series.index), smoothing_window(len(series.values))
    if len(series.values) == 1:
        _draw_dots(drawn, series)
        return
    lines = [("mean", moving_average(series.values, window))]
    if window > 1:
        lines.insert(0, ("each", series.values))
    for kind, values in lines:
        kept = thinned(values)
        add_path(drawn.root, drawn.x(series.episodes[kept]), drawn.y(values[kept]), f"{kind} {colour}")


def _draw_dots(drawn: Frame, series: Series) -> None:
    kept = thinned(series.values)
    for x, y in zip(drawn.x(series.episodes[kept]), drawn.y(series.values[kept]), strict=True):
        attributes = {"class": f"dot {series_class(series.index)}", "cx": place(x), "cy": place(y), "r": "3.5"}
        SubElement(drawn.root, "circle", attributes)


def _add_tooltips(drawn: Frame, series: Series) -> None:
    window = 1 if series.held_out else smoothing_window(len(series.values))
    means = moving_average(series.values, window)
    for row in np.unique(np.linspace(0, len(means) - 1, MOST_TOOLTIPS).round().astype(int)):
        where = {"cx": place(drawn.x(series.episodes[row])), "cy": place(drawn.y(means[row])), "r": "6"}
        lines = [
            f"{series.name}{', held-out prompts' if series.held_out else ''}",
            f"step {series.steps[row]:.0f} ({series.episodes[row]:,.0f} episodes): {series.values[row]:.4g}",
        ]
        if window > 1:
            lines.append(f"mean of the last {window}: {means[row]:.4g}")
        add_tooltip(SubElement(drawn.root, "circle", {"class": "hover", **where}), "\n".join(lines))
