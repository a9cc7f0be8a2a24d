"""What `config.yaml` of a run folder holds: enough to do the same run again, and what it was made of."""

import dataclasses
import shlex
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.environment import commit, versions
from trl_rewards_plugin.runs.layout import CONFIG
from trl_rewards_plugin.runs.public_names import shown_name
from trl_rewards_plugin.runs.read import read_settings
from trl_rewards_plugin.text import mapped

_SAME_IN_A_RUN = ("model", "dataset", "text_column", "prompt_prefix", "rewards")

# They differ by machine or run, are secret, or stand elsewhere in the file: none of them makes a run another run.
_LEFT_OUT = {
    "output_dir", "logging_dir", "run_name", "hub_token", "push_to_hub_token", "local_rank", "seed",
    "resume_from_checkpoint", "deepspeed_plugin", "distributed_state", "logging_first_step", "disable_tqdm",
}  # fmt: skip


def configuration(
    given: Mapping[str, Any], args: Any, made_of: Mapping[str, Any], always: Collection[str] = ()
) -> dict[str, Any]:
    """The run as `trl-rewards train --config config.yaml` reads it, by the recipe's arguments `given` and its config.

    `made_of` is for the reader; the command skips it. What is None, or empty there, is left out. Fields in `always`
    are written even at their default, since the file is read on top of a preset.
    """
    values = {key: value for key, value in given.items() if value is not None} | chosen_fields(args, always)
    facts = {**made_of, "versions": versions(), "commit": commit()}
    return values | {"made_of": {key: value for key, value in facts.items() if value}}


def check_same_run(folder: Path, given: Mapping[str, Any]) -> None:
    """Refuses to resume the run in `folder` if it began with another model, rewards or data; see `_SAME_IN_A_RUN`.

    Of paths only the last parts are compared: folders move. What one side was given as an object has no name.
    """
    if not (folder / CONFIG).is_file():  # of an earlier version, or of a trainer without a recipe
        return
    recorded = read_settings(folder)
    sides = (given, {**recorded, **recorded.get("made_of", {})})
    pairs = [(key, *(mapped(side.get(key), shown_name) for side in sides)) for key in _SAME_IN_A_RUN]
    found = [f"{key} {now!r} instead of {old!r}" for key, now, old in pairs if now != old and None not in (now, old)]
    if found:
        again = shlex.join(["--config", str(folder / CONFIG), "--resume_from_checkpoint"])
        step = f"trl-rewards train {again}; or train anew in another output_dir"
        raise InputError(f"what the run in {folder} began with, to resume it", "; ".join(found), step)


def chosen_fields(args: Any, always: Collection[str] = ()) -> dict[str, Any]:
    """Fields of a config dataclass that differ from a fresh one's, and those named in `always`, in plain types."""
    fresh, fields = _fresh(args), {}
    for field in dataclasses.fields(args):
        name, value = field.name, getattr(args, field.name)
        default = field.default if name == "use_cpu" else getattr(fresh, name)
        is_setting = field.init and not name.startswith("_") and name not in _LEFT_OUT
        if is_setting and (name in always or value != default):
            fields[name] = _plain(value)
    return fields


def _fresh(args: Any) -> Any:
    """A config of the same kind with nothing set."""
    from accelerate.state import AcceleratorState, PartialState

    # A config that is built clears the state that every Accelerator of the process shares, a training trainer's too.
    kept = [(state._shared_state, dict(state._shared_state)) for state in (AcceleratorState, PartialState)]
    try:
        # On a machine without a GPU some configs refuse their own defaults without use_cpu.
        return type(args)(output_dir=args.output_dir, use_cpu=args.use_cpu)
    finally:
        for state, values in kept:
            state.clear()
            state.update(values)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
