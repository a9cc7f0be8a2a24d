"""Keeps `reward_curve.png` in the output folder up to date. Leaves out: drawing it (`charts/curves.py`)."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trl_rewards_plugin.charts.curves import save_reward_curve
from trl_rewards_plugin.runs.layout import REWARD_CURVE


class TrainingCurvesCallback(TrainerCallback):
    """Draws the curves at every save and at the end."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws what is logged so far."""
        if state.is_world_process_zero:
            save_reward_curve(state.log_history, Path(args.output_dir) / REWARD_CURVE)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws the whole run."""
        self.on_save(args, state, control, **kwargs)
