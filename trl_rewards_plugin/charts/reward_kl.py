"""Reward against KL: what the starting model's samples could buy, and the path of the run; for files and for pages."""

from collections.abc import Mapping
from itertools import pairwise
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
from trl_rewards_plugin.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, padded_range, series_class

TILTED, BEST_OF_N = "best possible, estimated (too low at the right end)", "best of n"
RESULT = "result of this run, held-out prompts"
_PATHS = {  # the keys of a row -> what they draw
    ("eval_kl", "eval_reward"): "path of this run, held-out prompts",
    (KL, SCORES): "path of this run, training prompts",
}
_CLASSES = {TILTED: "before", BEST_OF_N: "before again"}  # on a page: grey, and dashed; the run has its own colour
LABELS = ("KL to the reference (nats per response)", "mean reward")


def reward_kl_series(metrics: Mapping[str, Any], log: Log) -> dict[str, np.ndarray]:
    """Name -> (R, 2) KL and reward: what was possible, the run's evaluations, else rollouts, and how it ended.

    What was possible and how it ended are measured on held-out prompts, once the run has finished.
    """
    curves = metrics.get("reward_at_kl") or {}
    names = {"tilted": TILTED, "best_of_n": BEST_OF_N}
    found = {name: np.array(curves[key]) for key, name in names.items() if key in curves}
    for keys, name in _PATHS.items():
        known = [row for row in own_rows(log) if all(key in row for key in keys)]
        if curves and any(key.startswith(("multiplier/", "weight/")) for row in known for key in row):
            continue  # the total of a rollout moves with them, the reward of the curves does not
        found_rows = [[row[key] for key in keys] for row in known]
        rows = np.array(found_rows, dtype=np.float64).reshape(-1, 2)
        if len(rows := rows[(np.abs(rows) < DRAWABLE).all(1)]):
            path = np.stack([moving_average(each, smoothing_window(len(rows))) for each in rows.T], axis=1)
            found[name] = path[thinned(path[:, 0], 60)]
            break
    result = [metrics.get("kl"), metrics.get("after", {}).get("reward")]
    return found | {RESULT: np.array([result])} if found and None not in result else found


def _ends(series: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Where the path begins and ends, and the result, each with the word that marks it."""
    paths = [points for name, points in series.items() if name in _PATHS.values() and len(points) > 1]
    ends = [pair for points in paths for pair in (("start", points[0]), ("end", points[-1]))]
    return ends + [("result", points[0]) for name, points in series.items() if name == RESULT]


def _offsets(places: Mapping[str, np.ndarray], corners: np.ndarray) -> list[tuple[float, float]]:
    """From each end to where its word begins: beside it, where lines, axes and the other words leave room.

    `places` are the series where they are drawn, `corners` the lower left and upper right one of the axes: in points,
    to the right and up.
    """
    taken = [np.linspace(*ends, 30) for line in places.values() for ends in pairwise(line)]
    taken += [point[None] for _, point in _ends(places)]
    found = []
    for word, point in _ends(places):
        width, height = 6.5 * len(word), 8.0
        box = np.stack(np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 3)), axis=-1).reshape(-1, 2)

        def room(offset: tuple[float, float], box: np.ndarray = box + point) -> float:
            word = box + offset
            others = np.linalg.norm(word[:, None] - np.concatenate(taken), axis=-1)
            return float(min(others.min(), (word - corners[0]).min(), (corners[1] - word).min(), 4.0))  # 4 are enough

        sides = [
            (left, low)
            for far in (9.0, 18.0, 27.0)  # the nearest that has room
            for left in (far, -width - far, -width / 2)
            for low in (-height / 2, far, -height - far)
        ]
        best = max(sides, key=room)
        taken.append(box + point + best)
        found.append(best)
    return found


def save_reward_kl(series: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws the series as a PNG."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    for name, points in series.items():
        marker, size = ("kD", 7.0) if name == RESULT else ("o-", 3.5)
        axes.plot(*points.T, marker, markersize=size, linewidth=1.5, label=name)
    arrow = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5}
    text: Any = {"fontsize": 9, "weight": "bold", "textcoords": "offset points", "arrowprops": arrow}
    axes.autoscale_view()  # else the places are those of empty axes
    ends, corners = _ends(series), [axes.transAxes.transform(corner) for corner in ((0, 0), (1, 1))]
    scale = 72 / figure.dpi  # points of a pixel
    places = {name: scale * axes.transData.transform(line) for name, line in series.items()}
    for (word, point), offset in zip(ends, _offsets(places, scale * np.array(corners)), strict=True):
        axes.plot(*point, "ko", markersize=9, fillstyle="none")
        axes.annotate(word, (point[0], point[1]), offset, **text)
    axes.set(xlabel=LABELS[0], ylabel=LABELS[1])
    axes.legend(frameon=False)
    save_picture(figure, [axes], path)


def draw_reward_kl(series: Mapping[str, np.ndarray], index: int) -> str:
    """Draws the series as an SVG, each point with a tooltip; `index` is the colour of the run."""
    (left, low), (right, high) = (pick(np.concatenate(list(series.values())), axis=0) for pick in (np.min, np.max))
    words = "; ".join(f"{name}: {points[-1, 1]:.3g} at {points[-1, 0]:.3g} nats" for name, points in series.items())
    chart = Chart("Reward against KL", words, *LABELS, padded_range(left, right), padded_range(low, high))
    for name, points in series.items():
        colour, radius = _CLASSES.get(name, series_class(index)), 5 if name == RESULT else 3
        if name != RESULT:
            chart.add_line(f"mean {colour}", *points.T)
        for kl, reward in points:
            chart.add_dot(f"dot {colour}", kl, reward, radius, [name, f"{reward:.3g} at {kl:.3g} nats"])
    places = {name: np.stack([chart.x(line[:, 0]), -chart.y(line[:, 1])], axis=1) for name, line in series.items()}
    corners = np.array([[LEFT, BOTTOM - HEIGHT], [WIDTH - RIGHT, -TOP]])
    for (word, (kl, reward)), offset in zip(_ends(series), _offsets(places, corners), strict=True):
        chart.add_dot("ring", kl, reward, 6)
        chart.add_label(word, kl, reward, offset)
    return chart.to_svg()
