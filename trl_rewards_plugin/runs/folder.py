"""The files of a run folder, but for the model and the card: what may be written where, and in what form.

Leaves out: uploading (`hub/upload.py`), rendering the card (`cards/model_card.py`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.monitoring.completions import EVAL_FOLDER, FOLDER
from trl_rewards_plugin.recipes.before_after import Evaluation, HeldOut
from trl_rewards_plugin.runs import checkpoints as checkpoint_folder
from trl_rewards_plugin.runs.log_file import LOG

METRICS, CONFIG, COMPLETIONS, CURVE, CARD = (
    "metrics.json",
    "config.yaml",
    "completions.parquet",
    "reward_curve.png",
    "README.md",
)
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def holds_run(folder: Path) -> list[str]:
    """Names in `folder` that only a run leaves there: its metrics, configuration, log, checkpoints and outputs."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())
    own = (METRICS, CONFIG, LOG, FOLDER, EVAL_FOLDER)
    return [name for name in names if name in own or _CHECKPOINT.fullmatch(name)]


def find_checkpoint(folder: Path, resume: str | bool | None) -> str | None:
    """The checkpoint to resume from: a given folder, the last whole one in `folder` for True or "true", else None.

    Raises:
        InputError: there is none, or the given one is damaged.
    """
    if resume is None or resume is False or str(resume).lower() in ("", "false", "none"):
        return None
    if resume is True or str(resume).lower() == "true":
        return str(checkpoint_folder.find_checkpoint(folder, True))
    if not Path(resume).is_dir():
        raise InputError("a checkpoint folder to resume from", f"{resume!r}, which is none", _checkpoints(folder))
    return str(checkpoint_folder.find_checkpoint(folder, resume))


def _checkpoints(folder: Path) -> str:
    names = [path.name for path in folder.glob("checkpoint-*")]
    return f"give one of {', '.join(sorted(names))} in {folder}" if names else "check the path"


def refuse_run(folder: Path, *, overwrite: bool) -> None:
    """Refuses a folder that is a file, or that holds a run which `overwrite` does not give up.

    Raises:
        InputError: it is or does.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder as output_dir", f"the file {folder}", "choose another output_dir")
    found = holds_run(folder)
    if found and not overwrite:
        raise InputError(
            "an output folder that holds no run yet",
            f"{folder} with {', '.join(found[:4])}",
            "choose another output_dir, go on with resume_from_checkpoint, or give up what is there with overwrite",
        )


def clear_run(folder: Path) -> None:
    """Removes what an earlier run left that a later resume could mistake for its own; other files stay."""
    for name in holds_run(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Indented JSON; NaN is an error here, because most readers of JSON refuse it."""
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """YAML in the given order."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")


def completion_rows(held_out: HeldOut, before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """One row a held-out prompt: texts before and after, sampled and greedy, each with total and components."""
    sides = {
        "before": before.sampled,
        "after": after.sampled,
        "before_greedy": before.greedy,
        "after_greedy": after.greedy,
    }
    rows = []
    for index, (prompt, source) in enumerate(zip(held_out.prompts, held_out.sources, strict=True)):
        row: dict[str, Any] = {"prompt": prompt, "source": source}
        row |= {side: scored.texts[index] for side, scored in sides.items()}
        for side, scored in sides.items():
            row[f"{side}_reward"] = float(scored.total[index])
            row |= {f"{side}_{name}": float(values[index]) for name, values in scored.components.items()}
        rows.append(row)
    return rows


def write_completions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`rows` as a parquet file."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
