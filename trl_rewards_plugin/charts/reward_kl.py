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
RESULT = "result of this run, held-out prompts"
_PATHS = {  # the keys of a row -> what they draw
    ("eval_kl", "eval_reward"): "path of this run, held-out prompts",
    (KL, SCORES): "path of this run, training prompts",
}
# What was possible is grey, and the run alone has a colour; its start is open, its end large, its result black.
_CLASSES = {TILTED: "before", BEST_OF_N: "before again", RESULT: "ink"}
_STYLES: Mapping[str, Mapping[str, Any]] = {
    TILTED: {"color": "0.5", "marker": "o"},
    BEST_OF_N: {"color": "0.5", "marker": "o", "linestyle": "--"},
    RESULT: {"color": "k", "marker": "D", "linestyle": ""},
    "start": {"marker": "o", "fillstyle": "none", "linestyle": ""},
    "end": {"marker": "s", "linestyle": ""},
}
LABELS = ("KL to the reference (nats per response)", "mean reward")


def reward_kl_series(metrics: Mapping[str, Any], log: Log) -> dict[str, np.ndarray]:
    """Name -> (R, 2) KL and reward: what was possible, the run's evaluations, else rollouts, and how it ended.

    What was possible and how it ended are measured on held-out prompts, once the run has finished. The best possible
    ends where best of n passes it.
    """
    curves = metrics.get("reward_at_kl") or {}
    names = {"tilted": TILTED, "best_of_n": BEST_OF_N}
    found = {name: np.array(curves[key]) for key, name in names.items() if key in curves}
    if len(found) == 2:  # the estimate is too low where it is beaten: its weights rest on few samples
        (kl, reward), (best_kl, best) = found[TILTED].T, found[BEST_OF_N].T
        passes = [*kl[reward < np.interp(kl, best_kl, best)], *best_kl[best > np.interp(best_kl, kl, reward)]]
        found[TILTED] = found[TILTED][: max(1, np.searchsorted(kl, min(passes, default=np.inf)))]
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


def _with_ends(series: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The series, and where a path of more than one point begins and ends; the result last, above all."""
    paths = [points for name, points in series.items() if name in _PATHS.values() and len(points) > 1]
    ends = {name: path[[at]] for path in paths for name, at in (("start", 0), ("end", -1))}
    return dict(sorted({**series, **ends}.items(), key=lambda one: one[0] == RESULT))


def save_reward_kl(series: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws the series as a PNG."""
    figure = new_figure(7, 5)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for name, points in _with_ends(series).items():
        style, size = _STYLES.get(name, {"marker": "o"}), 3.5 if len(points) > 1 else 8
        axes.plot(*points.T, **{"color": "C0", "markersize": size, "linewidth": 1.5, "label": name, **style})
    axes.set(xlabel=LABELS[0], ylabel=LABELS[1])
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    save_picture(figure, [axes], path)


def draw_reward_kl(series: Mapping[str, np.ndarray], index: int) -> str:
    """Draws the series as an SVG, each point with a tooltip; `index` is the colour of the run."""
    (left, low), (right, high) = (pick(np.concatenate(list(series.values())), axis=0) for pick in (np.min, np.max))
    words = "; ".join(f"{name}: {points[-1, 1]:.3g} at {points[-1, 0]:.3g} nats" for name, points in series.items())
    chart = Chart("Reward against KL", words, *LABELS, padded_range(left, right), padded_range(low, high))
    for name, points in _with_ends(series).items():
        colour, radius = _CLASSES.get(name, series_class(index)), 3 if len(points) > 1 else 6
        if len(points) > 1:
            chart.add_line(f"mean {colour}", *points.T)
        mark = "ring" if name == "start" else f"dot {colour}"
        for kl, reward in points:
            chart.add_dot(mark, kl, reward, radius, [name, f"{reward:.3g} at {kl:.3g} nats"])
    return chart.to_svg()
