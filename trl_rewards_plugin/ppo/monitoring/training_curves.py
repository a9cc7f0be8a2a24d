"""Reward, KL, length and entropy of a run as one picture, drawn anew at every save and at the end.

Leaves out: the reward curve with its components that a model card shows (charts/curves.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from trl_rewards_plugin.charts.curves import moving_average
from trl_rewards_plugin.runs.layout import TRAINING_CURVES
from trl_rewards_plugin.runs.writing import replacing

# Title, unit, key of a rollout's row, key of an evaluation's row.
PANELS = (
    ("Reward", "mean of a rollout", "objective/scores", "eval_reward"),
    ("KL to the reference", "nats a response", "objective/kl", "eval_kl"),
    ("Response length", "tokens", "tokens/responses_len_mean", "eval_length"),
    ("Entropy", "nats a token", "objective/entropy", None),
)
ROLLOUT_COLOR, EVAL_COLOR = "C0", "C1"


class TrainingCurvesCallback(TrainerCallback):
    """Keeps `training_curves.png` in the output folder up to date with the log."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws what is logged so far."""
        self._draw(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws the whole run."""
        self._draw(args, state)

    def _draw(self, args: Any, state: Any) -> None:
        if state.is_world_process_zero:
            save_training_curves(state.log_history, Path(args.output_dir) / TRAINING_CURVES)


def save_training_curves(log_history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the four curves of a `trainer.state.log_history`; nothing where it has no rollout yet.

    Each rollout is a thin line, the mean of the last tenth of the rollouts a bold one, and each evaluation a point.
    """
    if not any("objective/scores" in row for row in log_history):
        return
    # The object interface: pyplot would keep global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5))
    FigureCanvasAgg(figure)
    # Fixed margins: every automatic layout draws the picture twice.
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.08, top=0.89, wspace=0.2, hspace=0.18)
    handles: dict[str, Any] = {}
    for axes, (title, unit, key, eval_key) in zip(figure.subplots(2, 2, sharex=True).flat, PANELS, strict=True):
        handles |= _draw_rollouts(axes, *_series(log_history, key))
        if eval_key is not None:
            handles |= _draw_evaluations(axes, *_series(log_history, eval_key))
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylabel(unit)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("step (one rollout)")
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncols=len(handles), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        # Without its own metadata matplotlib writes its version, and equal runs would differ after an upgrade.
        figure.savefig(unfinished, dpi=120, format="png", metadata={"Software": None})


def _series(log_history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(R,) steps and (R,) values of the rows that have `key`."""
    rows = [(row["step"], row[key]) for row in log_history if key in row]
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _draw_rollouts(axes: Any, steps: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Returns label -> what was drawn, for the legend."""
    window = max(1, len(values) // 10)
    if window == 1:
        marker = "o" if len(values) == 1 else None
        (line,) = axes.plot(steps, values, color=ROLLOUT_COLOR, linewidth=1.8, marker=marker)
        return {"rollouts": line}
    (thin,) = axes.plot(steps, values, color=ROLLOUT_COLOR, alpha=0.3, linewidth=1)
    (bold,) = axes.plot(steps, moving_average(values, window), color=ROLLOUT_COLOR, linewidth=2)
    return {"rollouts": thin, f"mean of the last {window} rollouts": bold}


def _draw_evaluations(axes: Any, steps: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    if not len(values):
        return {}
    (points,) = axes.plot(steps, values, "o--", color=EVAL_COLOR, markersize=5, linewidth=1.2)
    return {"held-out prompts": points}
