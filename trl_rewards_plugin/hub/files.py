"""Which files of a folder go to the Hub, by exact name, so that notes, data and training state stay local.

Of a model what loads it again, of a metric, which becomes a Space, its scripts and what their source imports. Each
file is read once, so that the bytes that were checked are the bytes that are sent. Weights, which may not fit in
memory, stay on the disk: a change of them between check and upload is refused, and the Hub compares what arrives with
the digest that was announced. Leaves out: what the files hold (`plan.py`), and imports by `importlib`.
"""

import ast
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils.sha import git_hash
from safetensors import SafetensorError, safe_open

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs import layout
from trl_rewards_plugin.text import is_hub_id

_RESULTS = ".eval_results/*.yaml"
_LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
_MODEL_FILES = (
    layout.CARD, *_LICENSES, "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "source.spm", "target.spm", "chat_template.jinja",
    "preprocessor_config.json", layout.METRICS, layout.CONFIG, *layout.REWARDS.values(),
    layout.REWARD_CURVE, layout.REWARD_KL, _RESULTS,
)  # fmt: skip
_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", "adapter_model.safetensors", _INDEX)  # besides these, the shards that the index lists
_STATE = (
    layout.CHECKPOINTS, "*.bin", "*.pt", "*.pth", layout.VALUE_HEAD, layout.TRAINER_STATE, layout.RUN_STATE,
    "scheduler*", "rng_state*", "runs",
)  # fmt: skip
_SPACE_FILES = (layout.CARD, "app.py", "requirements.txt")
_LARGEST = 200_000_000  # bytes of a file that is read and searched for secrets; weights may have more
_SAVE_AGAIN = "save the model again"


@dataclass(frozen=True)
class UploadFile:
    """A file of the repository: its bytes, or the path of weights with what identifies them as they were checked."""

    name: str
    content: bytes | Path
    version: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def text(self) -> str:
        """Of a file in UTF-8, which is refused otherwise; without a byte order mark, its lines ending in LF."""
        assert isinstance(self.content, bytes)
        try:
            return self.content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise InputError(f"UTF-8 text in {self.name}", str(error), "save the file as UTF-8") from error

    @cached_property
    def operation(self) -> CommitOperationAdd:
        """The file as the Hub client uploads it; hashed once."""
        self.check_unchanged()
        operation = CommitOperationAdd(self.name, self.content)
        _ = operation.upload_info.sha256  # else computed when it is sent, from whatever lies there then
        self.check_unchanged()
        return operation

    def check_unchanged(self) -> None:
        """Refuses weights that were written since the plan was made."""
        if not isinstance(self.content, Path) or not self.version:
            return
        if not self.content.is_file() or _version(self.content) != self.version:
            step = "wait until nothing is writing there, then push again"
            raise InputError(f"{self.name} as it was checked", "a file that was changed meanwhile", step)

    def has_digest(self, digest: str) -> bool:
        """Whether `digest` is the file's: SHA-256 where the Hub stores it with LFS, else git's blob id."""
        if len(digest) == 64:
            return self.operation.upload_info.sha256.hex() == digest
        return git_hash(self.content if isinstance(self.content, bytes) else self.content.read_bytes()) == digest


def read_file(folder: Path, name: str) -> UploadFile:
    """The file `name` of `folder`, read once unless it holds weights; refused if it is no regular file.

    A link is followed inside of the folder, and from a snapshot in the Hub's cache to the cache's own blobs.
    """
    path, step = folder / name, "remove it, or put the file itself there"
    try:
        place = path.resolve(strict=True)
        # Not blocked by a pipe without a writer; and what was resolved is opened, should the link change now.
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, in Python 3.11 and 3.12
        reason = "a link to nothing" if path.is_symlink() else str(getattr(error, "strerror", error))
        raise InputError(f"a readable file {name} in {folder}", reason, step) from error
    try:
        status = os.fstat(descriptor)
        if not any(place.is_relative_to(home) for home in _homes(folder)):
            raise InputError(f"files of {folder} only", f"{name}, a link to {place}", step)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("files of a model", f"{name}, which is not a regular file", step)
        if path.suffix == ".safetensors":
            return UploadFile(name, place, _version(place))
        if status.st_size > _LARGEST:
            found = f"{status.st_size:,} bytes"
            raise InputError(f"at most {_LARGEST:,} bytes in {name}", found, "remove it, or shorten it")
        with open(descriptor, "rb", closefd=False) as stream:
            return UploadFile(name, stream.read())
    finally:
        os.close(descriptor)


def _homes(folder: Path) -> list[Path]:
    """Where files of `folder` may lie: in it, and, of a snapshot in the Hub's cache, among the cache's blobs."""
    place = folder.resolve()
    snapshot = next((one for one in (place, *place.parents) if one.parent.name == "snapshots"), None)
    if snapshot is None or not snapshot.parent.parent.name.startswith("models--"):
        return [place]
    return [place, snapshot.parent.parent / "blobs"]


def _version(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True)
class Selection:
    """What is uploaded, and what stays local with the reason."""

    files: Sequence[UploadFile]
    left_out: Mapping[str, str]

    def text_of(self, name: str) -> str:
        """A text file that was taken; "" if it was not."""
        return next((file.text for file in self.files if file.name == name), "")


def select_model(folder: Path, *, include_completions: bool = False) -> Selection:
    """The files of a saved model or adapter; refused where it could not be loaded again, or has links out of it."""
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        step = layout.finish_first(folder, "give the output_dir of a run")
        raise InputError("a folder with a saved model or adapter", f"no config.json in {folder}", step)
    shards = _shards(read_file(folder, _INDEX)) if (folder / _INDEX).exists() else []
    taken: dict[str, UploadFile] = {}
    left_out: dict[str, str] = {}
    for name in _names_in(folder):
        if layout.is_housekeeping(name) or any(parent in left_out for parent in _parents(name)):
            continue
        place, reason = _reason_to_leave_out(name, (*_WEIGHTS, *shards), include_completions)
        if reason is None:
            taken[name] = read_file(folder, name)
        else:
            left_out[place] = reason
    _check_model(folder, taken, shards)
    return Selection([*taken.values()], left_out)


def _names_in(folder: Path) -> list[str]:
    """Everything in `folder` but the folders themselves, by its name there. No link to a folder is followed."""
    paths = sorted(folder.rglob("*"))
    return [path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()]


def _parents(name: str) -> list[str]:
    """`a/b/c` -> `a`, `a/b`."""
    return [str(path) for path in reversed(PurePosixPath(name).parents)][1:]


def _reason_to_leave_out(name: str, weights: Sequence[str], include_completions: bool) -> tuple[str, str | None]:
    """The file, or the folder around it that stays local as a whole, and why; None for a file to upload."""
    for place in (*_parents(name), name):
        if any(fnmatch(place, pattern) for pattern in _STATE):
            return place, "training state"
    if layout.ROLLOUTS in _parents(name):
        return layout.ROLLOUTS, "prompts and outputs of every rollout"
    if name == layout.HELD_OUT:
        return name, None if include_completions else "prompts and outputs; upload them with --include-completions"
    if name.endswith(".safetensors") and name not in weights:
        return name, f"weights that neither the standard names nor {_INDEX} know"
    if name in weights or any(fnmatch(name, one) and name.count("/") == one.count("/") for one in _MODEL_FILES):
        return name, None
    return _place_of(name, [_RESULTS]), "not a file of a model"


def _place_of(name: str, taken: Sequence[str]) -> str:
    """The folder at the top that holds `name`, unless files of it are `taken`; else `name` itself."""
    top = name.partition("/")[0]
    return name if any(one.startswith(f"{top}/") for one in taken) else top


def _check_model(folder: Path, files: Mapping[str, UploadFile], shards: Sequence[str]) -> None:
    """Refuses what others could not load: missing or damaged weights, an adapter of an unknown base model."""
    base = _json_in(files.get("config.json") or files["adapter_config.json"]).get("base_model_name_or_path")
    weights = [file for file in files.values() if file.name.endswith(".safetensors")]
    if not weights:
        expected = "weights as safetensors (pickled ones can run code when they are loaded)"
        raise InputError(expected, f"none in {folder}", "save the model with save_pretrained")
    config = files[layout.CONFIG].text if layout.CONFIG in files else ""
    if base is not None and (not is_hub_id(str(base)) or _is_folder(str(base), folder, config)):
        found = f"base_model_name_or_path={str(base)!r} in adapter_config.json"
        step = "upload the base model first and put its id there, or merge both (docs/how-to/one-gpu.md, LoRA)"
        raise InputError("an adapter whose base model others can load", found, step)
    missing = sorted(set(shards) - files.keys())
    if missing:
        raise InputError(f"every shard that {_INDEX} lists", f"no {', '.join(missing)}", _SAVE_AGAIN)
    for file in weights:
        try:
            with safe_open(file.content, framework="np"):
                pass
        except SafetensorError as error:
            raise InputError(f"complete weights in {file.name}", str(error), _SAVE_AGAIN) from error


def _is_folder(base: str, folder: Path, config: str) -> bool:
    """Whether `base`, which reads like a Hub id, is a folder here, in `folder`, or where the run's `config` says."""
    by_path = re.search(rf"^model: ['\"]?\.\.?/(.*/)?{re.escape(base)}['\"]?$", config, re.MULTILINE)
    return by_path is not None or any((place / base).is_dir() for place in (Path(), folder))


def _shards(index: UploadFile) -> list[str]:
    """The files of weights that the index lists, all of them beside it."""
    listed = _json_in(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    if not names or not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        found = ", ".join(name for name in names if "/" in name) or "no such list"
        raise InputError(f"a list of the weights beside it in {_INDEX}", found, _SAVE_AGAIN)
    return names


def _json_in(file: UploadFile) -> dict[str, Any]:
    text = file.text
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON in {file.name}", str(error), _SAVE_AGAIN) from error
    if not isinstance(values, dict):
        raise InputError(f"a JSON object in {file.name}", type(values).__name__, _SAVE_AGAIN)
    return values


def is_space(folder: Path) -> bool:
    """Whether `folder` is a Space by its README: `sdk:` in the front matter."""
    front = r"---\n(?:(?!---).*\n)*?sdk:\s*\w+"
    return (folder / layout.CARD).is_file() and bool(re.match(front, read_file(folder, layout.CARD).text))


def select_space(folder: Path) -> Selection:
    """The files of a metric folder that is also a Space; one that is missing, no Python, or a link out is refused."""
    script = f"{folder.resolve().name}.py"
    missing = [name for name in (*_SPACE_FILES, script) if not (folder / name).is_file()]
    if missing:
        expected = f"a metric folder with {', '.join(_SPACE_FILES)} and {script}"
        step = "give one of the folders under trl_rewards_plugin/metrics"
        raise InputError(expected, f"no {', '.join(missing)}", step)
    names = _names_in(folder)
    files = {
        name: read_file(folder, name) for name in names if name in (*_SPACE_FILES, "packages.txt", *_LICENSES, script)
    }
    waiting = ["app.py", script]
    for name in waiting:  # grows while it is read
        new = [one for one in _imported_files(files[name]) if one in names and one not in files]
        files |= {one: read_file(folder, one) for one in new}
        waiting += new
    left_out = {_place_of(name, list(files)): "not a file of a Space" for name in names if name not in files}
    return Selection([files[name] for name in sorted(files)], left_out)


def _imported_files(script: UploadFile) -> dict[str, None]:
    """Where what `script` imports may lie: for `a.b` `a.py`, `a/b.py`, `a/__init__.py` ..., in order.

    They lie beside the script and, of an absolute import, at the top too.
    """
    try:
        tree = ast.parse(script.text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"Python in {script.name}", str(error), "fix the file") from error
    folders = PurePosixPath(script.name).parents  # from the script's own to the top
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        level, module = getattr(node, "level", 0), getattr(node, "module", None)
        tops = {folders[min(level, len(folders)) - 1]} if level else {folders[0], PurePosixPath()}
        for alias in node.names:
            name = (f"{module}." if module else "") + alias.name
            for count in range(1, name.count(".") + 2):
                path = PurePosixPath(*name.split(".")[:count])
                found |= dict.fromkeys(str(top / end) for top in tops for end in (f"{path}.py", path / "__init__.py"))
    return found
