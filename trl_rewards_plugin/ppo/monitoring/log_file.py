"""The Trainer's log as a file that can be read while it grows: `log.jsonl`, one JSON object a logged row.

Leaves out: reading it (`runs/read.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trl_rewards_plugin.runs.layout import LOG
from trl_rewards_plugin.runs.writing import append_log, write_log


class LogFileCallback(TrainerCallback):
    """Keeps `log.jsonl` in the output folder equal to the Trainer's log; a resume removes the rows it will repeat."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the file with what a checkpoint brought."""
        if state.is_world_process_zero:
            Path(str(args.output_dir)).mkdir(parents=True, exist_ok=True)
            write_log(Path(str(args.output_dir)) / LOG, state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Adds the row that was just logged."""
        if state.is_world_process_zero:
            append_log(Path(str(args.output_dir)) / LOG, state.log_history[-1:])
