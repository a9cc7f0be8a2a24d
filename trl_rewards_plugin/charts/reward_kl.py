"""Reward against KL: what the starting model's samples could buy, and the path of the run; for files and for pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trl_rewards_plugin.charts.picture import new_figure, save_picture
from trl_rewards_plugin.charts.series import (
    DRAWABLE,
    KL,
    SCORES,
    Log,
    moving_average,
    own_rows,
    smoothing_window,
    thinned,
)
from trl_rewards_plugin.charts.svg import Chart, padded_range, series_class

TILTED, BEST_OF_N = "best possible, estimated", "best of n"
_CLASSES = {TILTED: "before", BEST_OF_N: "before again"}  # on a page: grey, and dashed; the run has its own colour
LABELS = ("KL to the reference (nats per response)", "mean reward")


def reward_kl_series(metrics: Mapping[str, Any], log: Log) -> dict[str, np.ndarray]:
    """Name -> (R, 2) KL and reward: what was possible, once measured, and the run's evaluations, else rollouts."""
    curves = metrics.get("reward_at_kl") or {}
    names = {"tilted": TILTED, "best_of_n": BEST_OF_N}
    found = {name: np.array(curves[key]) for key, name in names.items() if key in curves}
    for keys, name in ((("eval_kl", "eval_reward"), "this run"), ((KL, SCORES), "this run, in training")):
        known = [row for row in own_rows(log) if all(key in row for key in keys)]
        if curves and any(key.startswith(("multiplier/", "weight/")) for row in known for key in row):
            continue  # the total of a rollout moves with them, the reward of the curves does not
        found_rows = [[row[key] for key in keys] for row in known]
        rows = np.array(found_rows, dtype=np.float64).reshape(-1, 2)
        if len(rows := rows[(np.abs(rows) < DRAWABLE).all(1)]):
            path = np.stack([moving_average(each, smoothing_window(len(rows))) for each in rows.T], axis=1)
            return found | {name: path[thinned(path[:, 0], 60)]}
    return found


def save_reward_kl(series: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws the series as a PNG."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot(*points.T, "o-", markersize=3.5, linewidth=1.5, label=name)
    axes.set(xlabel=LABELS[0], ylabel=LABELS[1])
    axes.legend(frameon=False)
    save_picture(figure, [axes], path)


def draw_reward_kl(series: Mapping[str, np.ndarray], index: int) -> str:
    """Draws the series as an SVG, each point with a tooltip; `index` is the colour of the run."""
    (left, low), (right, high) = (pick(np.concatenate(list(series.values())), axis=0) for pick in (np.min, np.max))
    words = "; ".join(f"{name}: {points[-1, 1]:.3g} at {points[-1, 0]:.3g} nats" for name, points in series.items())
    chart = Chart("Reward against KL", words, *LABELS, padded_range(left, right), padded_range(low, high))
    for name, points in series.items():
        colour = _CLASSES.get(name, series_class(index))
        chart.add_line(f"mean {colour}", *points.T)
        for kl, reward in points:
            chart.add_dot(f"dot {colour}", kl, reward, 3, [name, f"{reward:.3g} at {kl:.3g} nats"])
    return chart.to_svg()
