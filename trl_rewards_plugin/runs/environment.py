"""How a run was made: hardware, precision, energy, versions, commit; no names of machines, people or folders."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VERSIONED = ("trl_rewards_plugin", "trl", "transformers", "torch", "datasets", "accelerate")


def hardware(device: Any, processes: int = 1) -> str:
    """What the run computed on, such as "2 x NVIDIA H100 80GB HBM3" or "2 CPU cores (x86_64)"."""
    import torch

    if getattr(device, "type", "") == "cuda":
        name = torch.cuda.get_device_name(device)
        return f"{processes} x {name}" if processes > 1 else name
    if getattr(device, "type", "cpu") != "cpu":
        return f"{device.type} ({platform.machine()})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores ({platform.machine()})"


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
    for name in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a source tree
            found[name] = importlib.metadata.version(name)
    return found


def commit() -> str | None:
    """Commit of this package as the installer recorded it, or of its checkout ("<commit> with changes"); else None."""
    try:
        record = importlib.metadata.distribution("trl_rewards_plugin").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        record = None
    installed = json.loads(record).get("vcs_info", {}).get("commit_id") if record else None
    return installed or _checkout_commit(Path(__file__))


def _checkout_commit(file: Path) -> str | None:
    # A package inside another project's folder must not be given that project's commit: git has to know the file.
    if shutil.which("git") is None or _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    head, changes = _git(file.parent, "rev-parse", "HEAD"), _git(file.parent.parent, "status", "--porcelain", ".")
    return f"{head} with changes" if head and changes else head


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
