"""Reward against KL: what the starting model's samples could buy, and the path of the run; for files and for pages."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

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
# Grey, and dashed; the run has its own colour.
_CLASSES = {TILTED: "before", BEST_OF_N: "before again"}
_STYLES = {TILTED: ("o-", "0.5"), BEST_OF_N: ("o--", "0.5"), RESULT: ("D", "k")}
_Place: TypeAlias = Callable[[np.ndarray], np.ndarray]
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


def _words(
    series: Mapping[str, np.ndarray], x_range: Sequence[float], y_range: Sequence[float], place: _Place
) -> list[tuple[str, np.ndarray, tuple[float, float]]]:
    """Where the path begins and ends, and the result: the word that marks it, its point, and the word's offset.

    The offset, right and up in the units of `place`, leads to the side on which it covers the least of all that is
    drawn. `place`: (..., 2) KL and reward -> where they are drawn.
    """
    paths = [points for name, points in series.items() if name in _PATHS.values() and len(points) > 1]
    ends = [pair for points in paths for pair in (("start", points[0]), ("end", points[-1]))]
    ends += [("result", points[0]) for name, points in series.items() if name == RESULT]
    frame = np.array([(x, y) for x, y in zip(np.repeat(x_range, 2), [*y_range, *y_range[::-1]], strict=True)])
    lines = [place(line) for line in (frame, *series.values())]
    rings = [place(point) + np.array([[-6], [6]]) for _, point in ends]
    drawn = np.concatenate([np.linspace(*pair, 100) for line in (*lines, *rings) for pair in pairwise(line)])
    found = []
    for word, point in ends:
        size = np.array([7.5 * len(word), 11.0])
        right, left = 10.0, -8 - size[0]
        sides = [(right, -4.0), (left, -4.0), (right, -15.0), (left, -15.0), (right, 8.0), (left, 8.0)]
        sides += [(-size[0] / 2, -26.0), (-size[0] / 2, 16.0), (2 * right, -30.0), (2 * right, 24.0)]
        sides += [(-size[0] / 2, -42.0), (-size[0] / 2, 32.0)]
        corners = [place(point) + side for side in sides]
        covered = [(np.abs(drawn - corner - size / 2) < size / 2 + 2).all(1).sum() for corner in corners]
        best = int(np.argmin(covered))
        found.append((word, point, sides[best]))
        drawn = np.concatenate([drawn, np.linspace(corners[best], corners[best] + size, 100)])
    return found


def save_reward_kl(series: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws the series as a PNG."""
    from matplotlib.patheffects import withStroke

    figure = new_figure(7, 5)
    axes = figure.subplots()
    for name, points in series.items():
        (style, colour), size = _STYLES.get(name, ("o-", "C0")), 7.0 if name == RESULT else 3.5
        axes.plot(*points.T, style, color=colour, markersize=size, linewidth=1.5, label=name)
    halo = [withStroke(linewidth=3, foreground="white")]
    text: Any = {"fontsize": 9, "weight": "bold", "textcoords": "offset points", "path_effects": halo}
    ranges = axes.get_xlim(), axes.get_ylim()
    for word, point, offset in _words(series, *ranges, lambda at: axes.transData.transform(at) * 72 / figure.dpi):
        axes.plot(*point, "ko", markersize=9, fillstyle="none")
        axes.annotate(word, (point[0], point[1]), offset, **text)
    axes.set(xlabel=LABELS[0], ylabel=LABELS[1])
    figure.legend(loc="upper left", ncols=2, frameon=False)
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
    ranges = chart.x_range, chart.y_range
    for word, (kl, reward), offset in _words(
        series, *ranges, lambda at: np.stack([chart.x(at[..., 0]), -chart.y(at[..., 1])], axis=-1)
    ):
        chart.add_dot("ring", kl, reward, 6)
        chart.add_label(word, kl, reward, offset)
    return chart.to_svg()
