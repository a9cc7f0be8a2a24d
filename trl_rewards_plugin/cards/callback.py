"""Writes the card into every checkpoint, with the curves as they stand. Leaves out: what a card tells."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.from_trainer import card_data_from_trainer
from trl_rewards_plugin.charts.curves import save_reward_curve
from trl_rewards_plugin.runs.layout import CARD, REWARD_CURVE, checkpoint_name, is_finished_run
from trl_rewards_plugin.runs.writing import write_text


class ModelCardCallback(TrainerCallback):
    """Fills the card's data while `trainer` trains, and leaves the card in each checkpoint.

    Args:
        trainer: The trainer that it is a callback of; ours, or one of TRL's own.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._started: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes README.md and the curves beside the checkpoint's weights."""
        folder = Path(str(args.output_dir)) / checkpoint_name(state.global_step)
        if args.should_save and folder.is_dir():
            self.write(folder)

    def data(self, folder: Path) -> RewardModelCardData:
        """What is known by now; the curve is named where it lies in `folder`."""
        data = card_data_from_trainer(self.trainer)
        if data.seconds is None and self._started is not None:
            data = dataclasses.replace(data, seconds=time.perf_counter() - self._started)
        # A picture says what the table of the log says.
        return dataclasses.replace(data, curve=REWARD_CURVE, log=()) if (folder / REWARD_CURVE).is_file() else data

    def write(self, folder: Path, **changes: Any) -> None:
        """Leaves card and curves in `folder`; `changes` are fields of `RewardModelCardData`."""
        from trl_rewards_plugin.cards.model_card import render_model_card

        history = self.trainer.state.log_history
        if any("objective/scores" in row for row in history):
            save_reward_curve(history, folder / REWARD_CURVE)
        data = dataclasses.replace(self.data(folder), **changes)
        write_text(folder / CARD, render_model_card(data))


def create_model_card(
    trainer: Any,
    model_name: str | None = None,
    dataset_name: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
) -> None:
    """For the trainer's `create_model_card`: writes README.md, with the curves, into its output folder.

    Where a finished run lies in the folder, its card is rendered again, which tells more than the trainer knows.
    """
    from trl_rewards_plugin.cards.model_card import generate_model_card

    if not trainer.is_world_process_zero():
        return
    folder = Path(str(trainer.args.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name or ())
    given = {
        "model_name": model_name,
        "dataset": ", ".join(names),
        "tags": [tags] if isinstance(tags, str) else list(tags or ()),
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value}
    if is_finished_run(folder):
        write_text(folder / CARD, generate_model_card(folder, **changes))
    else:
        ModelCardCallback(trainer).write(folder, **changes)
