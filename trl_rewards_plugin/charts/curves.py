"""`reward_curve.png`: reward with its components, held-out reward, KL, response length and entropy of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trl_rewards_plugin.charts.picture import new_figure, save_picture
from trl_rewards_plugin.charts.series import HELD_OUT_REWARD, SCORES, Log, Series, panels, series_of
from trl_rewards_plugin.charts.svg import nice_ticks, tick_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELD_OUT = 1  # colour of evaluations; the reward has 0, its components those from 2 on


def save_reward_curve(log_history: Log, path: Path) -> None:
    """Draws the curves of a `trainer.state.log_history`, or that it has no rollout.

    Each rollout is a thin line, the mean of the last tenth of the rollouts a bold one, each evaluation a point.
    """
    found = panels([log_history])
    components = [panel for panel in found if panel.is_component]
    below = [panel.key for panel in found if not panel.is_component and panel.key not in (SCORES, HELD_OUT_REWARD)]
    width = min(max(len(below), 1), 3)
    below += ["."] * (-len(below) % width)
    held_out = any(panel.key == HELD_OUT_REWARD for panel in found)
    rows = [[SCORES] * 4 + [HELD_OUT_REWARD if held_out else SCORES] * 2]  # of six columns
    for start in range(0, len(below), width):
        rows.append([key for key in below[start : start + width] for _ in range(6 // width)])
    figure = new_figure(10, max(6.5, 1.3 + 2.6 * len(rows)))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.09, top=0.9, wspace=0.85, hspace=0.25)
    axes: dict[str, Axes] = figure.subplot_mosaic(rows, height_ratios=[3, *[2] * (len(rows) - 1)])
    for panel in found:
        if not panel.is_component:
            _draw(axes[panel.key], series_of(log_history, panel, panel.title, 0))
            axes[panel.key].set_title(f"{panel.title} ({panel.unit})", loc="left", fontsize=11)
            axes[panel.key].set_xlim(left=0)
    for colour, panel in enumerate(components, start=HELD_OUT + 1):
        series = series_of(log_history, panel, f"{panel.title} score (unweighted)", colour)
        _draw(axes[SCORES], [each for each in series if not each.held_out])
    for each in axes.values():  # matplotlib's own labels may have an offset, which would stand in the title
        ticks = nice_ticks(*each.get_ylim(), 7 if each is axes[SCORES] else 4)
        each.set_yticks(ticks, tick_labels(ticks))
    if found:
        figure.legend(*axes[SCORES].get_legend_handles_labels(), loc="upper left", ncols=4, frameon=False)
    else:
        axes[SCORES].set_axis_off()
        axes[SCORES].text(0.5, 0.5, "The log has no rollout yet.", ha="center", transform=axes[SCORES].transAxes)
    figure.supxlabel("episodes (responses)", fontsize=10)
    save_picture(figure, axes.values(), path)


def _draw(axes: Axes, series: Sequence[Series]) -> None:
    for each in series:
        if each.held_out:
            (points,) = axes.plot(each.episodes, each.values, "o--", markersize=4.5, linewidth=1, color=f"C{HELD_OUT}")
            points.set(label="held-out prompts", clip_on=False, zorder=3)
            continue
        colour, label = f"C{each.index}", each.name
        if each.window > 1:
            axes.plot(each.episodes, each.values, color=colour, alpha=0.3, linewidth=1)
            label = f"{each.name} (bold: mean of {each.window} rollouts)" if each.index == 0 else each.name
        marker = "o" if len(each.values) == 1 else None
        axes.plot(each.episodes, each.means, color=colour, linewidth=2, marker=marker, label=label)
