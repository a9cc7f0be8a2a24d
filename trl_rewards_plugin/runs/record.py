"""What `config.yaml` of a run folder holds: enough to do the same run again, what it was made of, and on what.

Leaves out: names of machines, people or folders.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import CONFIG
from trl_rewards_plugin.runs.public_names import shown_name
from trl_rewards_plugin.runs.read import read_settings
from trl_rewards_plugin.text import mapped

_VERSIONED = ("trl_rewards_plugin", "trl", "transformers", "torch", "datasets", "accelerate")
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


def check_same_run(folder: Path, given: Mapping[str, Any], *, names_only: bool = False) -> None:
    """Refuses to resume the run in `folder` if it began with another model, rewards or data; see `_SAME_IN_A_RUN`.

    Of paths only the last parts are compared: folders move. What one side was given as an object has no name. With
    `names_only`, of rewards too no more is known than their names.
    """
    if not (folder / CONFIG).is_file():  # of an earlier version, or of a trainer without a recipe
        return
    recorded = read_settings(folder)
    began = {**recorded, **recorded.get("made_of", {})}
    if names_only and "rewards" in began:
        began["rewards"] = [{"name": one["name"]} for one in began["rewards"]]
    pairs = [(key, *(mapped(side.get(key), shown_name) for side in (given, began))) for key in _SAME_IN_A_RUN]
    found = [line for key, now, old in pairs if None not in (now, old) for line in _differences(key, now, old)]
    if found:
        again = shlex.join(["--config", str(folder / CONFIG), "--resume_from_checkpoint"])
        step = f"trl-rewards train {again}; or train anew in another output_dir"
        raise InputError(f"what the run in {folder} began with, to resume it", "; ".join(found), step)


def _differences(key: str, now: Any, old: Any) -> list[str]:
    """What `now` differs in from `old`; of rewards, in each setting, if they are of the same names."""
    if key != "rewards" or (names := [one["name"] for one in now]) != [one["name"] for one in old]:
        shown = (names, [one["name"] for one in old]) if key == "rewards" else (now, old)
        return [] if now == old else ["{} {!r} instead of {!r}".format(key, *shown)]
    return [
        f"rewards[{place}] {names[place]}: {setting} {new.get(setting)!r} instead of {was.get(setting)!r}"
        for place, (new, was) in enumerate(zip(now, old, strict=True))
        for setting in {**was, **new}
        if new.get(setting) != was.get(setting)
    ]


def chosen_fields(args: Any, always: Collection[str] = ()) -> dict[str, Any]:
    """Fields of a config dataclass that differ from a fresh one's, and those named in `always`, in plain types."""
    from accelerate.state import AcceleratorState, PartialState

    # A config that is built clears the state that every Accelerator of the process shares, a training trainer's too.
    kept = [(state._shared_state, dict(state._shared_state)) for state in (AcceleratorState, PartialState)]
    try:
        # On a machine without a GPU some configs refuse their own defaults without use_cpu.
        fresh = type(args)(output_dir=args.output_dir, use_cpu=args.use_cpu)
    finally:
        for state, values in kept:
            state.clear()
            state.update(values)
    fields = {}
    for field in dataclasses.fields(args):
        name, value = field.name, getattr(args, field.name)
        default = field.default if name == "use_cpu" else getattr(fresh, name)
        is_setting = field.init and not name.startswith("_") and name not in _LEFT_OUT
        if is_setting and (name in always or value != default):
            fields[name] = _plain(value)
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def hardware(device: Any, processes: int = 1) -> str:
    """What the run computed on, such as "2 x NVIDIA H100 80GB HBM3" or "2 CPU cores (x86_64)"."""
    kind = getattr(device, "type", "cpu")
    if kind == "cuda":
        import torch

        return (f"{processes} x " if processes > 1 else "") + torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{f'{cores} CPU cores' if kind == 'cpu' else kind} ({platform.machine()})"


def precision(args: Any, history: Iterable[Mapping[str, Any]] = ()) -> str:
    """The precision that a run computes in, and what that costs where the log `history` shows it.

    The gap is the mean distance, in nats, of a sampled token's log-probability from the one that it is trained on.
    """
    name = "bfloat16 autocast" if args.bf16 else "float32"
    if getattr(args, "bf16_by_itself", False):
        name += ", on by itself since the GPU has it (bf16=False turns it off)"
    if getattr(args.device, "type", "") == "cuda" and args.tf32:
        name += ", TF32 in products of float32"
    gaps = [row["val/sampling_gap"] for row in history if "val/sampling_gap" in row]
    return name + (f"; sampling gap {sum(gaps) / len(gaps):.2g} nats a token" if gaps else "")


def epoch_rewards(history: Iterable[Mapping[str, Any]]) -> list[float]:
    """The mean reward of each epoch in a log; a last one that ended before its middle is left out."""
    rows = [row for row in history if "epoch_reward" in row]
    return [row["epoch_reward"] for row in rows if not 0 < row.get("epoch", 0) % 1 < 0.5]


def energy(callbacks: Iterable[Any]) -> dict[str, float]:
    """`kwh` and `co2_grams` as a CodeCarbon callback among the trainer's measured them; empty without one."""
    for callback in callbacks:
        data = getattr(getattr(callback, "tracker", None), "final_emissions_data", None)
        if data is not None:
            return {"kwh": float(data.energy_consumed), "co2_grams": 1000 * float(data.emissions)}
    return {}


def versions() -> dict[str, str]:
    """Package -> installed version, of those that can change a result."""
    found = {}
    for name in _VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a source tree
            found[name] = importlib.metadata.version(name)
    return found


def commit() -> str | None:
    """Commit of this package as the installer recorded it, or of its checkout ("<commit> with changes"); else None."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a source tree
        installed = importlib.metadata.distribution("trl_rewards_plugin").read_text("direct_url.json") or "{}"
        if found := json.loads(installed).get("vcs_info", {}).get("commit_id"):
            return str(found)
    return _checkout_commit(Path(__file__))


def _checkout_commit(file: Path) -> str | None:
    # A package inside another project's folder must not be given that project's commit: git has to know the file.
    if shutil.which("git") is None or _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    head, changes = _git(file.parent, "rev-parse", "HEAD"), _git(file.parent.parent, "status", "--porcelain", ".")
    return f"{head} with changes" if head and changes else head


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
