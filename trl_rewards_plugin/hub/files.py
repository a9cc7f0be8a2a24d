"""What of a folder goes to the Hub, checked before anything is sent: a model with its card, or a metric as a Space.

Only names that a model folder is known to have are taken, so that notes, data and training state stay at home.
Leaves out: the network (`upload.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.secrets import find_secret, readable
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
# Where a path of this machine could have got in; vocabularies are left alone, since "/root/" may be a piece of them.
_TOLD = (
    CARD,
    "*.yaml",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class UploadFile:
    """A file of the repository: its name there, and its bytes or where they lie."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self) -> bytes:
        """Its bytes."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True)
class Selection:
    """What goes up, and what stays at home with the reason."""

    files: tuple[UploadFile, ...]
    left_out: Mapping[str, str]


def is_space(folder: Path) -> bool:
    """Whether `folder` is a Space by its README: `sdk:` in front."""
    card = folder / CARD
    return card.is_file() and bool(re.match(r"---\n(?:(?!---).*\n)*?sdk:\s*\w+", card.read_text(encoding="utf-8")))


def select_model(folder: Path, *, include_completions: bool = False) -> Selection:
    """The files of a saved model or adapter.

    Raises:
        InputError: there is none, or one that could not be loaded back.
    """
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(
            "a folder with a saved model or adapter", f"no config.json in {folder}", "give the output_dir of a run"
        )
    taken, left_out = [], {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or is_housekeeping(path.name) or any(part in left_out for part in _above(name)):
            continue
        state = next((top for top in [*_above(name), name] if any(fnmatch(top, known) for known in STATE)), None)
        if state is not None:
            left_out[state] = "training state"
        elif ROLLOUTS in _above(name):
            left_out[ROLLOUTS] = "prompts and outputs of every rollout"
        elif name == HELD_OUT and not include_completions:
            left_out[name] = "prompts and outputs; --include-completions takes it along"
        elif name == HELD_OUT or _is_of_a_model(name):
            taken.append(UploadFile(name, path))
        else:
            left_out[name] = "no file of a model"
    _check_weights(folder, [file.name for file in taken])
    return Selection(tuple(taken), left_out)


def _above(name: str) -> list[str]:
    """`a/b/c` -> `a`, `a/b`."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _is_of_a_model(name: str) -> bool:
    return any(fnmatch(name, known) and name.count("/") == known.count("/") for known in MODEL_FILES)


def _check_weights(folder: Path, names: list[str]) -> None:
    config = _read_json(folder / ("config.json" if "config.json" in names else "adapter_config.json"))
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        raise InputError(
            "weights as safetensors (pickled ones can run code when they are loaded)",
            f"none in {folder}",
            "save the model with save_pretrained",
        )
    base = config.get("base_model_name_or_path")
    if base is not None and not is_hub_id(str(base)):
        raise InputError(
            "an adapter whose base model others can load",
            f"base_model_name_or_path={str(base)!r} in adapter_config.json",
            "upload the base model first and put its id there, or merge the adapter into it",
        )
    for name in names:
        if name.endswith(".index.json"):
            shards = set(_read_json(folder / name).get("weight_map", {}).values())
            missing = sorted(shards - set(weights))
            if missing:
                raise InputError(f"every part that {name} names", f"no {', '.join(missing)}", "save the model again")
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
        InputError: it lacks a part.
    """
    script = f"{folder.name}.py"
    missing = [name for name in (*SPACE_FILES, script) if not (folder / name).is_file()]
    if missing:
        step = "give one of the folders under trl_rewards_plugin/metrics"
        raise InputError(
            f"a metric folder with {', '.join(SPACE_FILES)} and {script}", f"no {', '.join(missing)}", step
        )
    taken, left_out = [], {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            continue
        if any(part.startswith((".", "__")) and part != "__init__.py" for part in name.split("/")):
            left_out[name.split("/")[0]] = "made by Python or hidden"
        else:
            taken.append(UploadFile(name, path))
    return Selection(tuple(taken), left_out)


def check_content(folder: Path, files: tuple[UploadFile, ...], own_token: str | None) -> None:
    """Looks for what must not become public in what goes up.

    Raises:
        InputError: a secret, or a path of this machine.
    """
    places = {f"{path}/" for path in (Path.home(), folder.resolve().parent) if len(path.parts) > 1}
    for file in files:
        content = readable(file.content)
        kind = find_secret(content, own_token)
        if kind is not None:
            step = "take it out of the file, and make it invalid if anyone else may have seen it"
            raise InputError("files without secrets", f"{kind} in {file.name}", step)
        if any(fnmatch(file.name, told) for told in _TOLD):
            found = next((place for place in places if place.encode() in content), None)
            if found is not None:
                raise InputError(
                    "files without paths of this machine",
                    f"{found} in {file.name}",
                    "replace it by a name that others know",
                )


def check_card(card: str) -> None:
    """Whether the card's metadata can be read.

    Raises:
        InputError: they cannot.
    """
    import yaml
    from huggingface_hub import ModelCard

    try:
        ModelCard(card)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        step = "mend the lines between the two --- in README.md, or render it again with trl-rewards card"
        raise InputError("a card whose metadata can be read", " ".join(str(error).split()), step) from error


def format_size(size: int) -> str:
    """`size` bytes as "512 B", "15.6 kB", "3.2 MB", "1.1 GB"."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}"
