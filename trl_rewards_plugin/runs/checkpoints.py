"""Checkpoint folders that are whole or absent: published by a rename, checked before use, removed by a rename.

It is written below `UNFINISHED` and renamed when every byte is on the disk. Its last file lists the others with sizes
and checksums, so that later damage is found, and numbers the checkpoints in the order of saving, which their steps do
not show where a run was resumed from an earlier one. What the files hold: `ppo/checkpoints/state.py`, the Trainer.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trl_rewards_plugin.atomic import flush, write_text
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import CARD, CHECKPOINTS, RUN_STATE, TRAINER_STATE, UNFINISHED, checkpoint_step

_REPLACED = "replaced-"
# What save_pretrained calls weights, and what makes a loader look for an adapter.
_WEIGHTS = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|adapter_(model\.safetensors|config\.json)"
)
_CHECKSUM = ', "checksum": '
_NO = ("", "false", "none")  # words of resume_from_checkpoint for none
# The keys of a state without a checksum, as versions up to 0.1 wrote it.
_UNSIGNED = {"kl_coef", "episodes", "epoch_scores", "seconds", "alarms", "metrics", "rewards", "number", "files"}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_logger = logging.getLogger(__name__)


def seal(folder: Path, state: dict[str, Any], number: int = 1) -> None:
    """Writes `state` and the list of all other files into a folder, and everything through to the disk."""
    # The card is no part of the state; it may be written again once the folder is whole.
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (RUN_STATE, CARD))
    files = {path.relative_to(folder).as_posix(): [path.stat().st_size, _checksum(path)] for path in paths}
    write_text(folder / RUN_STATE, _signed(json.dumps({**state, "number": number, "files": files})))
    for path in (*paths, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush(path)


def publish(unfinished: Path, folder: Path) -> None:
    """Renames a sealed folder to its name; one that has the name already gives way."""
    if folder.exists():
        folder.rename(unfinished.with_name(f"{_REPLACED}{folder.name}"))
    unfinished.rename(folder)
    flush(folder.parent)


def publish_files(unfinished: Path, folder: Path) -> None:
    """Moves a saved model to its place, file by file; weights of an earlier one, which a loader may prefer, go.

    An adapter leaves the weights of a whole model in the same folder where they are, as peft does.
    """
    new = [path.relative_to(unfinished) for path in sorted(unfinished.rglob("*")) if path.is_file()]
    for name in new:
        flush(unfinished / name)
    for name in new:
        (folder / name).parent.mkdir(exist_ok=True)
        (unfinished / name).replace(folder / name)
    for path in () if Path("adapter_config.json") in new else folder.iterdir():
        if _WEIGHTS.fullmatch(path.name) and path.relative_to(folder) not in new:
            path.unlink()
    remove_unfinished(folder)


@contextlib.contextmanager
def cleared_on_failure(output_dir: Path) -> Iterator[None]:
    """Removes what a save that fails has written: a full disk gets its room back."""
    try:
        yield
    except BaseException:
        remove_unfinished(output_dir)
        raise


def rotate(output_dir: Path, limit: int | None, keep: set[Path]) -> None:
    """Removes the oldest checkpoints until `limit` are left, but none of `keep`. No limit: None or 0."""
    if not limit or limit < 0:
        return
    folders = checkpoints(output_dir)
    spare = [folder for folder in folders if folder not in keep]
    for folder in spare[: max(0, len(folders) - limit)]:
        (output_dir / UNFINISHED).mkdir(exist_ok=True)
        folder.rename(output_dir / UNFINISHED / f"removed-{folder.name}")
    remove_unfinished(output_dir)


def remove_unfinished(output_dir: Path) -> None:
    """Removes what a save, or one that was killed, left behind."""
    _put_back(output_dir)
    if (output_dir / UNFINISHED).is_dir():
        shutil.rmtree(output_dir / UNFINISHED)


def _put_back(output_dir: Path) -> None:
    """Gives a checkpoint its name again that had given way when its save was killed before the successor came."""
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        for replaced in (output_dir / UNFINISHED).glob(f"{_REPLACED}*"):
            folder = output_dir / replaced.name.removeprefix(_REPLACED)
            if not folder.exists():
                replaced.rename(folder)


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoint folders in `output_dir` in the order of saving; before them, those whose order is not known."""
    found = [(checkpoint_step(path.name), path) for path in output_dir.glob(CHECKPOINTS) if path.is_dir()]
    return [path for *_, path in sorted((_number(path), step, path) for step, path in found if step is not None)]


def next_number(output_dir: Path) -> int:
    """The number of a checkpoint that is saved now: one more than that of the last."""
    return max(map(_number, checkpoints(output_dir)), default=0) + 1


def _number(folder: Path) -> int:
    """Which checkpoint of its output folder this is, counted from 1; 0 where its state cannot be read."""
    try:
        return int(_state(folder)["number"])
    except _UNREADABLE:
        return 0


def _signed(text: str) -> str:
    """`text`, a JSON object, with its checksum as the last entry."""
    return f"{text[:-1]}{_CHECKSUM}{zlib.crc32(text.encode('utf-8'))}}}"


def _state(folder: Path) -> dict[str, Any]:
    """What `seal` wrote. Checkpoints of earlier versions have no checksum, and no key that is not known."""
    if not (folder / RUN_STATE).is_file():  # a pipe would never end
        raise FileNotFoundError(RUN_STATE)
    text = (folder / RUN_STATE).read_text(encoding="utf-8")
    state: dict[str, Any] = json.loads(text)
    if state.keys() != _UNSIGNED and text != _signed(text.rpartition(_CHECKSUM)[0] + "}"):
        raise ValueError("its checksum differs")
    return state


def damage(folder: Path) -> str | None:
    """What makes a folder useless for a resume, in words; None if nothing does."""
    if not folder.is_dir():
        return "there is no such folder"
    try:
        files = {name: (int(size), int(checksum)) for name, (size, checksum) in _state(folder)["files"].items()}
    except _UNREADABLE as error:
        reason = "its checksum differs" if type(error) is ValueError else type(error).__name__
        return f"{RUN_STATE}, which is written last, is missing or cannot be read ({reason})"
    missing = [name for name in (*files, TRAINER_STATE) if name not in files or not (folder / name).is_file()]
    if missing:
        return f"{missing[0]} is missing"
    for name, (size, checksum) in files.items():
        path = folder / name
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _checksum(path) != checksum:
            return f"{name} is not what was saved: its checksum differs"
    if not any("optim" in name for name in files):
        return "it was saved without the state of the optimizer (save_only_model)"
    return None


def find_checkpoint(
    output_dir: Path, resume: str | os.PathLike[str] | bool | None, *, quiet: bool = False
) -> Path | None:
    """The checkpoint to resume from: a given folder, or for True or "true" the whole one saved last in `output_dir`.

    None, False, "", "false" and "none" are for none. Unless `quiet`, damaged ones that are passed over are warned of;
    InputError where the given one is damaged, or none is whole.
    """
    word = str(resume).lower()
    if word in _NO:
        return None
    if word == "true":
        return _last_whole(output_dir, quiet)
    folder = Path(str(resume))
    wrong = damage(folder)
    if wrong is None:
        return folder
    beside = checkpoints(folder.parent if folder.is_dir() else output_dir)
    others = ", ".join(path.name for path in beside if path.name != folder.name)
    another = f"resume from another of {others}, or from the last complete one by giving no folder (in Python: True)"
    expected = "a complete checkpoint of this trainer"
    raise InputError(expected, f"{folder}: {wrong}", another if others else "check the path")


def resumed_run(output_dir: Path, resume: str | os.PathLike[str] | bool | None) -> Path | None:
    """The folder of the run that `find_checkpoint` is asked to resume; refused as by it where there is no checkpoint.

    Reads no checkpoint, and puts none back as that does, for which another run might not be ready.
    """
    word = str(resume).lower()
    if word == "true":
        run, there = output_dir, bool(checkpoints(output_dir)) or (output_dir / UNFINISHED).exists()
    else:
        run, there = Path(str(resume)).parent, word not in _NO and Path(str(resume)).exists()
    return run if there or find_checkpoint(output_dir, resume, quiet=True) is not None else None


def _last_whole(output_dir: Path, quiet: bool) -> Path:
    _put_back(output_dir)
    found = []
    # One without a number might be the last: it is named before another is taken.
    for folder in sorted(reversed(checkpoints(output_dir)), key=lambda folder: _number(folder) > 0):
        wrong = damage(folder)
        if wrong is None:
            return folder
        found.append(f"{folder.name}: {wrong}")
        if not quiet:
            _logger.warning("%s is damaged and was skipped: %s", folder, wrong)
    expected = "a complete checkpoint to resume from in output_dir"
    step = "train without resume_from_checkpoint, or check output_dir"
    raise InputError(expected, "; ".join([f"none in {output_dir}", *found]), step)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return value
