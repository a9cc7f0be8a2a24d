"""Completions with their scores: a table in the console, and one parquet file per step, in the layout of TRL's GRPO.

Columns: step, prompt, completion, one per reward, what rewards passed to `log_extra`, and advantage where known.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.maths.masking import masked_row_means
from trl_rewards_plugin.ppo.policy.prompts import prompt_lines
from trl_rewards_plugin.runs.layout import EVALUATIONS, ROLLOUTS, completions_name
from trl_rewards_plugin.runs.writing import write_table
from trl_rewards_plugin.terminal import patient_output
from trl_rewards_plugin.text import printable

Table = dict[str, list[Any]]  # column name -> one value a row
SHOWN_CHARACTERS = 200


class CompletionLog:
    """The completions of the last rollout, kept until they are logged; nothing without `log_completions`."""

    def __init__(self, args: Seq2SeqPPOConfig):
        self.output_dir = Path(str(args.output_dir))
        self.enabled, self.limit = args.log_completions, args.num_completions_to_print
        self.trackers = [name for name in ("wandb", "trackio") if name in (args.report_to or ())]
        self.is_main_process = args.process_index == 0  # the one that prints and writes
        self._parts: list[Table] = []
        self._rollout: Table = {}

    def add(self, table: Table) -> None:
        """Keeps a part of the running rollout."""
        if self.enabled:
            self._parts.append(table)

    def end_rollout(self, advantages: Tensor, response_mask: Tensor) -> None:
        """Joins the parts, whose rows have these advantages (B, T); a response's is the mean over its tokens."""
        if self.enabled:
            means = masked_row_means(advantages, response_mask)
            self._rollout = {**join_tables(self._parts), "advantage": means.tolist()}
            self._parts = []

    def log_rollout(self, step: int) -> None:
        """Prints and writes the last rollout, once."""
        table, self._rollout = self._rollout, {}
        self._log(table, step, ROLLOUTS, f"Step {step}")

    def log_batch(self, table: Table, step: int) -> None:
        """Prints and writes rows of this process from a loop of the user's own; the parts kept so far are dropped."""
        self._parts, self._rollout = [], table
        self.log_rollout(step)

    def log_evaluation(self, table: Table, step: int) -> None:
        """Prints and writes the held-out rows of this process."""
        self._log(table, step, EVALUATIONS, f"Held-out prompts after step {step}")

    def _log(self, table: Table, step: int, folder: str, title: str) -> None:
        if not self.enabled:
            return
        table = join_tables(gather_object([table]))
        if self.is_main_process and table:
            write_completions(self.output_dir / folder, table, step)
            for tracker in self.trackers:
                send_table(tracker, folder, {"step": [step] * len(table["prompt"]), **table})
            if self.limit != 0:
                print_completions(table, title, self.limit)


def join_tables(tables: Sequence[Table]) -> Table:
    """All rows under all columns, None where a table lacks a column."""
    joined: Table = {name: [] for table in tables for name in table}
    for table in tables:
        rows = len(next(iter(table.values()), []))
        for name, values in joined.items():
            values += table.get(name, [None] * rows)
    return joined


def write_completions(folder: Path, table: Table, step: int) -> Path:
    """Writes one step's completions, every row with its step; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / completions_name(step)
    write_table(path, {"step": [step] * len(next(iter(table.values()))), **table})
    return path


def send_table(tracker: str, name: str, table: Table) -> None:
    """Logs a table to "wandb" or "trackio" as TRL's trainers do, with conversations as text."""
    import pandas

    backend = importlib.import_module(tracker)
    if tracker == "wandb" and backend.run is None:
        return
    texts = {column: [*map(prompt_lines, table[column])] for column in ("prompt", "completion")}
    backend.log({name: backend.Table(dataframe=pandas.DataFrame({**table, **texts}))})


def print_completions(table: Mapping[str, list[Any]], title: str, limit: int | None = None) -> None:
    """Prints the first `limit` rows (None: all) as wide as the terminal; long texts are cut."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=title, expand=True, show_lines=True)
    styles = {"prompt": "yellow", "completion": "green", "advantage": "magenta"}
    for name in table:
        is_text = name in ("prompt", "completion")  # whose room the long names of others, which are folded, leave
        room: dict[str, Any] = {"ratio": 1} if is_text else {"max_width": 9, "justify": "right"}
        shown.add_column(name.replace("_", " "), style=styles.get(name, "cyan"), overflow="fold", **room)
    for row in list(zip(*table.values(), strict=True))[:limit]:
        shown.add_row(*(Text(_cell(name, value)) for name, value in zip(table, row, strict=True)))
    with patient_output():
        Console().print(shown)


def _cell(name: str, value: Any) -> str:
    if name in ("prompt", "completion"):
        text = printable(prompt_lines(value))
        return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else str(value)
