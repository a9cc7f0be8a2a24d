"""The trainer's log as a file that can be read while it grows: `log.jsonl`, one JSON object a logged row.

Leaves out: reading it (`report/run.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

LOG = "log.jsonl"


class LogFileCallback(TrainerCallback):
    """Keeps `log.jsonl` in the output folder equal to the trainer's log; a resume takes back what it does again."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins the file anew, with what a checkpoint brought."""
        self._write(args, state, state.log_history, "w")

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Adds the row that was just logged."""
        self._write(args, state, state.log_history[-1:], "a")

    def _write(self, args: Any, state: Any, rows: list[dict[str, Any]], mode: str) -> None:
        if state.is_world_process_zero:
            path = Path(str(args.output_dir)) / LOG
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open(mode, encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
