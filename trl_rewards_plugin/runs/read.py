"""What a run folder tells of its run, finished or not: log, settings, numbers, outputs. Leaves out: drawing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_rewards_plugin.cards.from_run import read_yaml
from trl_rewards_plugin.errors import InputError, suggestion
from trl_rewards_plugin.runs.checkpoints import HOST_STATE_FILE as STATE
from trl_rewards_plugin.runs.checkpoints import checkpoints

# As the recipe and the trainer name them; tests hold these to the writers, whose modules load torch.
LOG, METRICS, CONFIG = "log.jsonl", "metrics.json", "config.yaml"
HELD_OUT, ROLLOUTS, EVALUATIONS = "completions.parquet", "completions", "eval_completions"


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        name: What the page calls it; no two runs of a page have the same.
        folder: The run folder.
        log: Rows of the trainer's log, oldest first.
        metrics: What `metrics.json` holds; None while it trains.
        settings: What `config.yaml` holds, `made_of` included; empty while it trains.
        held_out: Rows of `completions.parquet`; none while it trains.
    """

    name: str
    folder: Path
    log: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_out: Sequence[Mapping[str, Any]] = ()

    @property
    def last_step(self) -> int:
        """Rollouts done, as far as the log tells."""
        return max((int(row["step"]) for row in self.log if "step" in row), default=0)

    @property
    def completion_files(self) -> dict[str, list[Path]]:
        """Parquet files of outputs that `log_completions` left, by step: those of rollouts, of evaluations."""
        return {name: sorted((self.folder / name).glob("completions_*.parquet")) for name in (ROLLOUTS, EVALUATIONS)}


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in `folders`, each under a name of its own.

    Raises:
        InputError: no folder, one given twice, one that holds no run, or a file in it that cannot be read.
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise InputError("at least one run folder", "none", "give the output_dir of a run")
    places = [path.resolve() for path in paths]
    twice = next((path for place, path in zip(places, paths, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise InputError("different run folders", f"{twice} twice", "give each once")
    names = _distinct_names(places)
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def _distinct_names(places: Sequence[Path]) -> list[str]:
    """The last parts of each path: as few as tell all paths apart."""
    count = 1
    while True:
        names = ["/".join(place.parts[-count:]) for place in places]
        if len(set(names)) == len(places):
            return names
        count += 1


def read_run(folder: Path, name: str) -> Run:
    """The run in `folder`.

    Raises:
        InputError: there is none, or a file of it cannot be read.
    """
    if folder.is_file():
        raise InputError("a run folder", f"the file {folder}", f"give a folder, such as {folder.parent}")
    if not folder.is_dir():
        near = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        step = suggestion(folder.name, near, "give the output_dir of a run")
        raise InputError("a run folder", f"{str(folder)!r}, which is no folder", step)
    log, metrics = _read_log(folder), folder / METRICS
    if not log and not metrics.is_file():
        raise InputError(
            f"a run folder, with {LOG} or {METRICS}",
            f"{folder} without them",
            "give the output_dir of trl-rewards train; a run that has just begun has its log after one rollout",
        )
    return Run(
        name,
        folder,
        log,
        metrics=_read_json(metrics) if metrics.is_file() else None,
        settings=read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {},
        held_out=read_rows(folder / HELD_OUT) if (folder / HELD_OUT).is_file() else (),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file.

    Raises:
        InputError: it is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("a parquet file as the run wrote it", f"{path}: {reason}", "remove or restore it") from error
    return rows


def _read_log(folder: Path) -> list[dict[str, Any]]:
    """`log.jsonl`, which the recipe keeps; else the log in the checkpoint saved last, which every trainer leaves."""
    path = folder / LOG
    if path.is_file():
        *whole, _rest = path.read_text(encoding="utf-8").split("\n")  # `rest` is a line that is being written now
        return [_parsed(line, path) for line in whole]
    states = [path / STATE for path in checkpoints(folder) if (path / STATE).is_file()]
    history: list[dict[str, Any]] = _read_json(states[-1]).get("log_history", []) if states else []
    return history


def _read_json(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text(encoding="utf-8"), path)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"JSON in {path}", str(error), "restore the file from the run") from error
    if not isinstance(values, dict):
        raise InputError(f"a JSON object in {path}", type(values).__name__, "restore the file from the run")
    return values
