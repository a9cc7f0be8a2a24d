"""Which files of a folder go to the Hub: a model with its card, or a metric as a Space.

Only names that a model folder is known to have are taken, so that notes, data and training state stay local.
Leaves out: what the files hold (`secrets.py`), the network (`upload.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils.sha import git_hash

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import (
    CARD,
    CHECKPOINTS,
    CONFIG,
    HELD_OUT,
    METRICS,
    REWARD_CURVE,
    ROLLOUTS,
    RUN_STATE,
    TRAINER_STATE,
    VALUE_HEAD,
    is_housekeeping,
)
from trl_rewards_plugin.text import is_hub_id

MODEL_FILES = (
    CARD, "LICENSE*", "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
    "source.spm", "target.spm", "chat_template.jinja", "preprocessor_config.json", METRICS, CONFIG,
    REWARD_CURVE, ".eval_results/*.yaml",
)  # fmt: skip
STATE = (
    CHECKPOINTS, "*.bin", "*.pt", "*.pth", VALUE_HEAD, TRAINER_STATE, RUN_STATE,
    "scheduler*", "rng_state*", "runs",
)  # fmt: skip
SPACE_FILES = (CARD, "app.py", "requirements.txt")


@dataclass(frozen=True)
class UploadFile:
    """A file of the repository.

    Attributes:
        name: In the repository.
        content: Its bytes; of weights, which may not fit in memory, the path.
    """

    name: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def operation(self) -> CommitOperationAdd:
        """The file as the Hub client uploads it; hashed once."""
        return CommitOperationAdd(self.name, self.content)

    def has_digest(self, digest: str) -> bool:
        """Whether `digest` is the file's: SHA-256 where the Hub stores it with LFS, else git's blob id."""
        if len(digest) == 64:
            return self.operation.upload_info.sha256.hex() == digest
        return git_hash(self.content if isinstance(self.content, bytes) else self.content.read_bytes()) == digest


@dataclass(frozen=True)
class Selection:
    """What is uploaded, and what stays local with the reason."""

    files: tuple[UploadFile, ...]
    left_out: Mapping[str, str]


def read_file(path: Path, name: str) -> UploadFile:
    """The file at `path`, read once unless it holds weights."""
    return UploadFile(name, path if path.suffix == ".safetensors" else path.read_bytes())


def is_space(folder: Path) -> bool:
    """Whether `folder` is a Space by its README: `sdk:` in the front matter."""
    card = folder / CARD
    return card.is_file() and bool(re.match(r"---\n(?:(?!---).*\n)*?sdk:\s*\w+", card.read_text(encoding="utf-8")))


def select_model(folder: Path, *, include_completions: bool = False) -> Selection:
    """The files of a saved model or adapter.

    Raises:
        InputError: there is none, or it could not be loaded again.
    """
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        step = "give the output_dir of a run"
        raise InputError("a folder with a saved model or adapter", f"no config.json in {folder}", step)
    taken: list[UploadFile] = []
    left_out: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or is_housekeeping(path.name) or any(parent in left_out for parent in _parents(name)):
            continue
        place, reason = _reason_to_leave_out(name, include_completions)
        if reason is None:
            taken.append(read_file(path, name))
        else:
            left_out[place] = reason
    _check_model(folder, [file.name for file in taken])
    return Selection(tuple(taken), left_out)


def _reason_to_leave_out(name: str, include_completions: bool) -> tuple[str, str | None]:
    """The file, or the folder around it that stays local as a whole, and why; None for a file to upload."""
    for place in (*_parents(name), name):
        if any(fnmatch(place, pattern) for pattern in STATE):
            return place, "training state"
    if ROLLOUTS in _parents(name):
        return ROLLOUTS, "prompts and outputs of every rollout"
    if name == HELD_OUT:
        return name, None if include_completions else "prompts and outputs; upload them with --include-completions"
    known = any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in MODEL_FILES)
    return name, None if known else "not a file of a model"


def _parents(name: str) -> list[str]:
    """`a/b/c` -> `a`, `a/b`."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _check_model(folder: Path, names: list[str]) -> None:
    """Refuses what others could not load: missing or damaged weights, an adapter of an unknown base model."""
    config = _read_json(folder / ("config.json" if "config.json" in names else "adapter_config.json"))
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        expected = "weights as safetensors (pickled ones can run code when they are loaded)"
        raise InputError(expected, f"none in {folder}", "save the model with save_pretrained")
    base = config.get("base_model_name_or_path")
    if base is not None and not is_hub_id(str(base)):
        raise InputError(
            "an adapter whose base model others can load",
            f"base_model_name_or_path={str(base)!r} in adapter_config.json",
            "upload the base model first and put its id there, or merge the adapter into it",
        )
    for name in (name for name in names if name.endswith(".index.json")):
        shards = set(_read_json(folder / name).get("weight_map", {}).values())
        missing = sorted(shards - set(weights))
        if missing:
            raise InputError(f"every shard that {name} lists", f"no {', '.join(missing)}", "save the model again")
    for name in weights:
        _check_safetensors(folder / name)


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise InputError(f"whole weights in {path.name}", str(error), "save the model again") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"JSON in {path.name}", str(error), "save the model again") from error
    return values if isinstance(values, dict) else {}


def select_space(folder: Path) -> Selection:
    """The files of a metric folder that is also a Space.

    Raises:
        InputError: one of its files is missing.
    """
    script = f"{folder.name}.py"
    missing = [name for name in (*SPACE_FILES, script) if not (folder / name).is_file()]
    if missing:
        expected = f"a metric folder with {', '.join(SPACE_FILES)} and {script}"
        step = "give one of the folders under trl_rewards_plugin/metrics"
        raise InputError(expected, f"no {', '.join(missing)}", step)
    taken: list[UploadFile] = []
    left_out: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            continue
        if any(part.startswith((".", "__")) and part != "__init__.py" for part in name.split("/")):
            left_out[name.split("/")[0]] = "hidden, or generated by Python"
        else:
            taken.append(read_file(path, name))
    return Selection(tuple(taken), left_out)
