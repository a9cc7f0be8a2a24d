"""The reward and KL curves as a picture. Leaves out: where the log comes from, and the card that shows the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trl_rewards_plugin.runs.writing import replacing


def rollout_rows(log_history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The log's one row a rollout, which has the mean reward."""
    return [row for row in log_history if "objective/scores" in row]


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """(T,) mean of the last `window` values at each step, of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def save_reward_curve(log_history: Sequence[Mapping[str, Any]], path: Path, components: Sequence[str]) -> None:
    """Draws mean reward and components of each rollout, raw and smoothed, above the KL to the reference."""
    # The object interface: pyplot would keep global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = rollout_rows(log_history)
    episodes = np.array([row.get("episode", index + 1) for index, row in enumerate(rows)], dtype=np.float64)
    window = max(1, len(rows) // 10)
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    series = {"reward": "objective/scores"}
    if len(components) > 1:
        series |= {name: _component_key(rows, name) for name in components}
    for index, (label, key) in enumerate(series.items()):
        _draw(top, episodes, rows, key, window, label=label, color=f"C{index}", width=2.5 if index == 0 else 1.6)
    top.set_ylabel("mean of a rollout")
    top.set_title(f"Training reward (bold: mean of the last {window} rollouts)" if window > 1 else "Training reward")
    if rows:
        top.legend(loc="best", frameon=False)
    _draw(bottom, episodes, rows, "objective/kl", window, label="KL", color="0.25", width=1.6)
    bottom.set_ylabel("KL to the start\n(nats a response)")
    bottom.set_xlabel("episodes (prompts answered)")
    for axes in (top, bottom):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as unfinished:
        # Without its own metadata matplotlib writes its version, and equal runs would differ after an upgrade.
        figure.savefig(unfinished, dpi=120, format="png", metadata={"Software": None})


def _component_key(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """`rewards/<name>/mean`, as a combined reward logs its components in TRL; a lone reward is `rewards/<name>`."""
    key = f"rewards/{name}/mean"
    return key if any(key in row for row in rows) else f"rewards/{name}"


def _draw(
    axes: Any,
    episodes: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    key: str,
    window: int,
    *,
    label: str,
    color: str,
    width: float,
) -> None:
    known = np.array([key in row for row in rows], dtype=bool)
    if not known.any():
        return
    values = np.array([row[key] for row in rows if key in row], dtype=np.float64)
    marker = "o" if len(values) == 1 else None
    if window > 1:
        axes.plot(episodes[known], values, color=color, alpha=0.25, linewidth=1)
    axes.plot(
        episodes[known], moving_average(values, window), color=color, linewidth=width, label=label, marker=marker
    )
