"""Reads a run folder, finished or not, for card, report, upload, evaluation and resume.

A file that is missing, damaged or of another shape is refused. A shape is a tuple of types; a list of one shape for
any number of items, or of one shape per item; or a mapping of keys to shapes, where "*" stands for all further keys,
and a key that ends in "?" may be missing. Leaves out: whether a checkpoint is whole
(`checkpoints.py`), and what is made of the run.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any, cast

from trl_rewards_plugin import rows
from trl_rewards_plugin.errors import InputError, nearest
from trl_rewards_plugin.runs import layout
from trl_rewards_plugin.runs.checkpoints import checkpoints
from trl_rewards_plugin.runs.public_names import shown_name
from trl_rewards_plugin.yaml_text import read_yaml

_RESTORE = "restore the file from the run, or train again"
_NUMBER: Any = (int, float)
_SCORE: Any = (int, float, NoneType)  # None where nothing was scored
_TEXT: Any = (str, NoneType)
_SIDES = ("before", "after", "before_greedy", "after_greedy", "sources", "best_of_16")
_ENDS = [_SCORE, _SCORE]
_GAIN = {"mean": _SCORE, "ci95": _ENDS}

_METRICS: Mapping[str, Any] = {
    **{side: {"reward": _SCORE, "*": _SCORE} for side in _SIDES},
    "reward_gain": {**_GAIN, "n": (int,)}, "component_gain": {"*": _GAIN}, "warnings?": [(str,)],
    "guard": {"*": {"before": _SCORE, "after": _SCORE}}, "counts?": {"*": {"before": _NUMBER, "after": _NUMBER}},
    "targets?": {"*": {"min?": _NUMBER, "max?": _NUMBER, "mean": _SCORE, "slack": _SCORE}},
    "prompt_cuts?": {"prompts": (int,), "cut": (int,), "limit": (int,), "kept": _SCORE},
    "reward_at_kl?": {"*": [[_NUMBER, _NUMBER]]},
    "kl": _SCORE, "episodes": (int,), "seconds": _NUMBER, "seed": (int,),
}  # fmt: skip
_EVALUATION: Mapping[str, Any] = {
    "after": (str,), "before": _TEXT, "n": (int,), "bars?": [(str,)], "failed?": [(str,)],
    "metrics": {"*": {"before?": _SCORE, "after?": _SCORE, "gain?": {"reward_gain": _SCORE, "ci95": _ENDS}}},
}  # fmt: skip
_REWARDS = [{"name": (str,), "weight": _NUMBER, "model?": _TEXT}]
_SETTINGS: Mapping[str, Any] = {
    "preset?": _TEXT, "model?": _TEXT, "reward?": _TEXT, "held_out_reward?": _TEXT, "dataset?": _TEXT,
    "eval_dataset?": _TEXT, "prompt_prefix?": _TEXT, "response_length?": (int, NoneType), "seed?": (int, NoneType),
    "made_of?": {
        "rewards?": _REWARDS, "held_out_rewards?": _REWARDS, "aggregation?": _TEXT, "disagreement_coef?": _NUMBER,
        "push_to?": _TEXT, "held_out?": _TEXT, "held_out_warning?": _TEXT, "hardware?": _TEXT, "precision?": _TEXT,
        "license?": _TEXT, "commit?": _TEXT, "train_rows?": (int, NoneType), "rollouts?": (int,),
        "epoch_rewards?": [_SCORE], "energy?": {"*": _NUMBER}, "versions?": {"*": (str,)},
    },
}  # fmt: skip
# As `ppo/checkpoints/state.py` writes it.
RUN_STATE_SHAPE: Mapping[str, Any] = {
    "kl_coef": _NUMBER, "episodes": (int,), "epoch_scores": [_NUMBER, (int,)], "seconds": _NUMBER,
    "alarms": {"*": (int,)}, "metrics": [{"*": [_SCORE]}], "rewards": [{}], "total_loss?": _SCORE,
    "evaluation_rewards?": [{}],
}  # fmt: skip
_ROW: Mapping[str, Any] = {
    "prompt?": _TEXT, "source": (str,), "before": (str,), "after": (str,), "before_greedy?": _TEXT,
    "after_greedy?": _TEXT, "before_reward": _SCORE, "after_reward": _SCORE,
}  # fmt: skip
# Beginnings of the log's keys whose values are drawn.
_DRAWN = ("step", "episode", "epoch_reward", "objective/", "rewards/", "tokens/", "multiplier/", "eval_")


@dataclass(frozen=True)
class Run:
    """A run, whose metrics, settings and held-out rows are empty while it trains, or an evaluation."""

    name: str  # what the page calls it; no two runs of a page have the same
    folder: Path
    log: Sequence[Mapping[str, Any]]  # rows of the trainer's log, oldest first
    metrics: Mapping[str, Any] | None = None  # what `metrics.json` holds
    settings: Mapping[str, Any] = field(default_factory=dict)  # what `config.yaml` holds, `made_of` included
    held_out: Sequence[Mapping[str, Any]] = ()  # rows of `completions.parquet`, or an evaluation's outputs likewise
    evaluation: Mapping[str, Any] | None = None  # what `evaluation.json` holds, where this is no run

    @property
    def compared(self) -> tuple[str, str]:
        """What "before" and "after" stand for."""
        if self.evaluation is not None:
            names = (str(self.evaluation[side]) for side in ("before", "after"))
            before, after = (re.sub(r"^\./| \(column output\)$", "", name) for name in names)  # the usual column
            return before, after
        return str(shown_name(self.settings.get("model", "the starting model"))), self.name

    @property
    def ranked_by(self) -> str:
        """Of an evaluation's metrics the one that stands for the reward: a reward's total, else the first."""
        names = [*self.evaluation["metrics"]] if self.evaluation else []
        return next((name for name in names if name.endswith(" reward")), next(iter(names), "reward"))

    @property
    def last_step(self) -> int:
        """The last rollout in the log."""
        return max((int(row["step"]) for row in self.log if "step" in row), default=0)

    @property
    def completion_files(self) -> dict[str, list[Path]]:
        """Parquet files that `log_completions` left, by step: those of rollouts, of evaluations."""
        folders = (layout.ROLLOUTS, layout.EVALUATIONS)
        return {name: sorted((self.folder / name).glob("completions_*.parquet")) for name in folders}


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in `folders`, each given once, under the last parts of its path that tell it from the others."""
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise InputError("at least one run folder", "none", "give the output_dir of a run")
    places = [path.resolve() for path in paths]
    twice = next((path for place, path in zip(places, paths, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise InputError("different run folders", f"{twice} twice", "give each once")
    names: list[str] = []
    parts = 0
    while len(set(names)) < len(places):
        parts += 1
        names = ["/".join(place.parts[-parts:]) for place in places]
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """The run in `folder`, finished or not."""
    place = folder.parent if folder.is_file() else folder
    is_run = any((place / name).is_file() for name in (layout.LOG, layout.METRICS))
    if folder.is_file():
        step = f"give its folder: {place}" if is_run else "give the output_dir of a run"
        raise InputError("a run folder", f"the file {folder}", step)
    if not folder.is_dir():
        names = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        near = nearest(folder.name, names)
        slip = f"did you mean {str(folder.parent / near)!r}? " if near else ""
        step = f"{slip}give the output_dir of a run"
        raise InputError("a run folder", f"{str(folder)!r}, which is not a folder", step)
    if not is_run and (folder / layout.EVALUATION).is_file():
        result = checked(read_json(folder / layout.EVALUATION), _EVALUATION, folder / layout.EVALUATION)
        run = Run(name, folder, (), evaluation=result)
        return replace(run, held_out=[_held_out_row(row, run.ranked_by) for row in read_rows(folder / layout.OUTPUTS)])
    log = read_log(folder)
    if not log and not (folder / layout.METRICS).is_file():
        kept = (layout.LOG, layout.METRICS, layout.EVALUATION, layout.CHECKPOINTS)
        if inside := sorted({str(path.parent) for name in kept for path in folder.glob(f"*/{name}")}):
            step = f"give one or more of the runs in it: {', '.join(inside[:10])}{' ...' if len(inside) > 10 else ''}"
            raise InputError("run folders", f"{folder}, which holds run folders", step)
        step = "give the output_dir of trl-rewards train; a run that has just begun has its log after one rollout"
        raise InputError(f"a run folder, with {layout.LOG} or {layout.METRICS}", f"{folder} without them", step)
    return Run(
        name,
        folder,
        log,
        metrics=read_metrics(folder) if (folder / layout.METRICS).is_file() else None,
        settings=read_settings(folder) if (folder / layout.CONFIG).is_file() else {},
        held_out=read_held_out(folder) if (folder / layout.HELD_OUT).is_file() else (),
    )


def _held_out_row(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """A row of `outputs.parquet` as `completions.parquet` has it; `metric` stands for the reward."""
    named = {re.sub(r"^(before|after) ", r"\1_", key): value for key, value in row.items()}
    scored = [side for side in ("before", "after") if f"{side}_{metric}" in named]
    return {"prompt": "", **named, **{f"{side}_reward": named[f"{side}_{metric}"] for side in scored}}


def read_finished_run(folder: Path) -> Run:
    """The finished run in `folder`, without its log."""
    missing = [name for name in layout.FINISHED_RUN if not (folder / name).is_file()]
    if missing:
        found = f"{folder} without {', '.join(missing)}" if folder.is_dir() else f"{folder}, which is not a folder"
        step = layout.finish_first(folder, "give the output_dir of a finished run")
        raise InputError(f"a run folder with {', '.join(layout.FINISHED_RUN)}", found, step)
    name = folder.resolve().name
    return Run(name, folder, (), read_metrics(folder), read_settings(folder), read_held_out(folder))


def read_metrics(folder: Path) -> dict[str, Any]:
    """`metrics.json`."""
    path = folder / layout.METRICS
    metrics = checked(read_json(path), _METRICS, path)
    names = {"reward", *metrics["component_gain"]}
    for side in ("before", "after", "before_greedy", "after_greedy"):
        if metrics[side].keys() != names:
            raise _damaged(path, f"{side} with {sorted(metrics[side])} instead of {sorted(names)}")
    return metrics


def read_settings(folder: Path) -> dict[str, Any]:
    """`config.yaml`, `made_of` included."""
    path = folder / layout.CONFIG
    return checked(read_yaml(path, f"YAML in {path}", _RESTORE, by_hand=False), _SETTINGS, path)


def read_held_out(folder: Path) -> list[dict[str, Any]]:
    """The rows of `completions.parquet`, with as many scores after as before."""
    path = folder / layout.HELD_OUT
    found = read_rows(path)
    columns = [name for name in next(iter(found), {}) if name.startswith("before_") and name != "before_greedy"]
    scores = [name.removeprefix("before_") for name in columns]
    shape = {**_ROW, **{f"{side}_{name}": _SCORE for name in scores for side in ("before", "after")}}
    return [checked(row, shape, path) for row in found]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file."""
    return list(rows.read_rows(str(path), "parquet", ""))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """`log.jsonl`, which the recipe keeps; else the log in the checkpoint saved last, which every trainer leaves.

    A last line without its end is one that is being written now.
    """
    path = folder / layout.LOG
    if path.is_file():
        *lines, _unfinished = read_text(path).split("\n")
        return [_log_row(_parse_json(line, path), path) for line in lines]
    states = [path / layout.TRAINER_STATE for path in checkpoints(folder) if (path / layout.TRAINER_STATE).is_file()]
    if not states:
        return []
    history = read_json(states[-1]).get("log_history", [])
    if not isinstance(history, list):
        raise _damaged(states[-1], f"log_history is {type(history).__name__}")
    return [_log_row(row, states[-1]) for row in history]


def _log_row(row: Any, path: Path) -> dict[str, Any]:
    values = checked(row, {}, path)
    drawn = {key: value for key, value in values.items() if key.startswith(_DRAWN)}
    checked(drawn, {"*": _NUMBER}, path)
    if drawn and not math.isfinite(values.get("step", math.nan)):
        raise _damaged(path, f"step is {values.get('step')}")
    return values


def read_text(path: Path) -> str:
    """A text file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    return checked(_parse_json(read_text(path), path), {}, path)


def _parse_json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON in {path}", str(error), _RESTORE) from error


def checked(values: Any, shape: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`values` of `path`, which must be a mapping of the shape that the run wrote."""
    wrong = _mismatch(values, shape)
    if wrong is not None:
        raise _damaged(path, wrong)
    return cast(dict[str, Any], values)


def _mismatch(values: Any, shape: Any, place: str = "it") -> str | None:
    """What in `values` has another shape, in words; None if nothing has."""
    parts: list[tuple[Any, Any, str]] = []
    if isinstance(shape, tuple):
        # JSON and YAML have integers that no float holds.
        fits = isinstance(values, shape) and not isinstance(values, bool)
        fits = fits and not (isinstance(values, int) and abs(values) >= 2**63)
    elif isinstance(shape, list):
        fits = isinstance(values, list) and len(shape) in (1, len(values))
        if fits:
            parts = [(value, shape[index % len(shape)], f"{place}[{index}]") for index, value in enumerate(values)]
    else:
        fits = isinstance(values, dict) and all(isinstance(key, str) for key in values)
        if fits:
            missing = [key for key in shape if not key.endswith(("?", "*")) and key not in values]
            if missing:
                return f"{place} lacks {', '.join(missing)}"
            known = {key.removesuffix("?"): kind for key, kind in shape.items()}
            parts = [(value, known.get(key, known.get("*")), key) for key, value in values.items()]
    if not fits:
        return f"{place} is {values!r}"[:200]
    wrong = (_mismatch(value, kind, where) for value, kind, where in parts if kind is not None)
    return next((words for words in wrong if words is not None), None)


def _damaged(path: Path, found: str) -> InputError:
    return InputError(f"{path} as the run wrote it", found, _RESTORE)
