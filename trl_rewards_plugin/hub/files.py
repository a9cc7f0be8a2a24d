"""Which files of a model's folder go to the Hub, by exact name, so that notes, data and training state stay local.

Leaves out: metrics (`space.py`), what the files hold (`plan.py`), the network (`upload.py`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.outgoing import UploadFile, read_file
from trl_rewards_plugin.runs import layout
from trl_rewards_plugin.text import is_hub_id

RESULTS = ".eval_results/*.yaml"
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
MODEL_FILES = (
    layout.CARD, *LICENSES, "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "source.spm", "target.spm", "chat_template.jinja",
    "preprocessor_config.json", layout.METRICS, layout.CONFIG, *layout.REWARDS.values(),
    layout.REWARD_CURVE, layout.REWARD_KL, RESULTS,
)  # fmt: skip
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", "adapter_model.safetensors", INDEX)  # besides these, the shards that the index lists
STATE = (
    layout.CHECKPOINTS, "*.bin", "*.pt", "*.pth", layout.VALUE_HEAD, layout.TRAINER_STATE, layout.RUN_STATE,
    "scheduler*", "rng_state*", "runs",
)  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """What is uploaded, and what stays local with the reason."""

    files: tuple[UploadFile, ...]
    left_out: Mapping[str, str]

    def text_of(self, name: str) -> str:
        """A text file that was taken; "" if it was not."""
        return next((file.text for file in self.files if file.name == name), "")


def select_model(folder: Path, *, include_completions: bool = False) -> Selection:
    """The files of a saved model or adapter; refused where it could not be loaded again, or has links out of it."""
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        step = "give the output_dir of a run"
        raise InputError("a folder with a saved model or adapter", f"no config.json in {folder}", step)
    shards = _shards(read_file(folder, INDEX)) if (folder / INDEX).exists() else ()
    taken: list[UploadFile] = []
    left_out: dict[str, str] = {}
    for name in names_in(folder):
        if layout.is_housekeeping(name) or any(parent in left_out for parent in _parents(name)):
            continue
        place, reason = _reason_to_leave_out(name, (*WEIGHTS, *shards), include_completions)
        if reason is None:
            taken.append(read_file(folder, name))
        else:
            left_out[place] = reason
    _check_model(folder, taken, shards)
    return Selection(tuple(taken), left_out)


def names_in(folder: Path) -> list[str]:
    """Everything in `folder` but the folders themselves, by its name there. No link to a folder is followed."""
    paths = sorted(folder.rglob("*"))
    return [path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()]


def _reason_to_leave_out(name: str, weights: Sequence[str], include_completions: bool) -> tuple[str, str | None]:
    """The file, or the folder around it that stays local as a whole, and why; None for a file to upload."""
    for place in (*_parents(name), name):
        if any(fnmatch(place, pattern) for pattern in STATE):
            return place, "training state"
    if layout.ROLLOUTS in _parents(name):
        return layout.ROLLOUTS, "prompts and outputs of every rollout"
    if name == layout.HELD_OUT:
        return name, None if include_completions else "prompts and outputs; upload them with --include-completions"
    if name.endswith(".safetensors") and name not in weights:
        return name, f"weights that neither the standard names nor {INDEX} know"
    if name in weights or any(fnmatch(name, one) and name.count("/") == one.count("/") for one in MODEL_FILES):
        return name, None
    return place_of(name, [RESULTS]), "not a file of a model"


def place_of(name: str, taken: Sequence[str]) -> str:
    """The folder at the top that holds `name`, unless files of it are `taken`; else `name` itself."""
    top = name.partition("/")[0]
    return name if any(one.startswith(f"{top}/") for one in taken) else top


def _parents(name: str) -> list[str]:
    """`a/b/c` -> `a`, `a/b`."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _check_model(folder: Path, files: Sequence[UploadFile], shards: Sequence[str]) -> None:
    """Refuses what others could not load: missing or damaged weights, an adapter of an unknown base model."""
    by_name = {file.name: file for file in files}
    config = _json_in(by_name.get("config.json") or by_name["adapter_config.json"])
    weights = [file for file in files if file.name.endswith(".safetensors")]
    if not weights:
        expected = "weights as safetensors (pickled ones can run code when they are loaded)"
        raise InputError(expected, f"none in {folder}", "save the model with save_pretrained")
    base = config.get("base_model_name_or_path")
    if base is not None and not is_hub_id(str(base)):
        found = f"base_model_name_or_path={str(base)!r} in adapter_config.json"
        step = "upload the base model first and put its id there, or merge the adapter into it"
        raise InputError("an adapter whose base model others can load", found, step)
    missing = sorted(set(shards) - set(by_name))
    if missing:
        raise InputError(f"every shard that {INDEX} lists", f"no {', '.join(missing)}", "save the model again")
    for file in weights:
        try:
            with safe_open(file.content, framework="np"):
                pass
        except SafetensorError as error:
            raise InputError(f"complete weights in {file.name}", str(error), "save the model again") from error


def _shards(index: UploadFile) -> list[str]:
    """The files of weights that the index lists, all of them beside it."""
    listed = _json_in(index).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names or not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        found = ", ".join(name for name in names if "/" in name) or "no such list"
        raise InputError(f"a list of the weights beside it in {index.name}", found, "save the model again")
    return names


def _json_in(file: UploadFile) -> dict[str, Any]:
    text = file.text
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON in {file.name}", str(error), "save the model again") from error
    if not isinstance(values, dict):
        raise InputError(f"a JSON object in {file.name}", type(values).__name__, "save the model again")
    return values
