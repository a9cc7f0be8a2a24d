"""`function:` in reward files: a dotted path <-> what can be imported by it, with short names for our own rewards."""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean

READY_MADE = {
    "length": "trl_rewards_plugin.rewards.text_rewards.LengthReward",
    "repetition": "trl_rewards_plugin.rewards.text_rewards.RepetitionReward",
    "similarity": "trl_rewards_plugin.rewards.text_rewards.SimilarityReward",
    "remote": "trl_rewards_plugin.rewards.remote_reward.RemoteReward",
}
"""Short name -> dotted path."""
_files: dict[str, str] = {}  # module that was imported as a file -> the file


def imported(name: str) -> Any:
    """The function or class of a short name, a dotted path or "file.py:name"; InputError where there is none."""
    check_name(name)
    file, _, attribute = name.rpartition(":")
    if file.endswith(".py"):
        name = f"{_import_file(Path(file).resolve())}:{attribute}"
    try:
        return pkgutil.resolve_name(READY_MADE.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        raise _not_found(name, error) from error


def check_name(name: str) -> None:
    """Refuses what `imported` cannot find, as far as that shows without importing a module of the user's."""
    file = Path(name.rpartition(":")[0])
    if file.suffix == ".py" and not file.is_file():
        step = "give file.py:name, relative to the current folder, or in full"
        raise InputError(f"the file of {file.name}:name", f"no file {file.resolve()}", step)
    if file.suffix == ".py":
        _check_mentioned(name, file)
    if not {".", ":"} & set(name) and name not in READY_MADE:
        raise _not_found(name, "not one of these, and a path of one part is a module")


def _check_mentioned(name: str, file: Path) -> None:
    """Refuses "file.py:name" where that name stands nowhere in the file, unless it makes names as it runs."""
    text, attribute = file.read_text(encoding="utf-8", errors="replace"), name.rpartition(":")[2].partition(".")[0]
    if not re.search(rf"\b{re.escape(attribute)}\b|import \*|__getattr__|globals\(|exec\(|setattr\(", text):
        defined = [f"{file}:{one}" for one in re.findall(r"^(?:async +)?(?:def|class) +(\w+)", text, re.MULTILINE)]
        raise _not_found(name, f"not in that file, which defines {', '.join(defined) or 'nothing'}", defined)


def _not_found(name: str, reason: object, known: Iterable[str] = READY_MADE) -> InputError:
    expected = f"function as one of {', '.join(READY_MADE)}, or as package.module.name or file.py:name"
    step = f"{did_you_mean(name, known)}check the name; a module of yours must be installed or on PYTHONPATH"
    return InputError(expected, f"{name!r}: {reason}", step)


def _import_file(file: Path) -> str:
    """The name under which `file` is a module now, and in processes that unpickle what is found in it."""
    expected = f"the file of {file.name}:name"
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        module = importlib.import_module(file.stem)
    except ImportError as error:
        raise InputError(expected, f"{error}", "correct the file") from error
    if Path(module.__file__ or "").resolve() != file:
        found = f"another module called {file.stem!r}: {module.__file__ or 'a built-in one'}"
        raise InputError(expected, found, f"give {file.name} another name")
    _files[file.stem] = str(file)
    return file.stem


def path_of(thing: Any) -> str | None:
    """The name by which `imported` gives back this very function or class, the short one where it has one."""
    path = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', None)}"
    try:
        if path.startswith("__main__.") or pkgutil.resolve_name(path) is not thing:
            return None
    except (ImportError, AttributeError, ValueError):
        return None
    if file := _files.get(thing.__module__):
        return f"{file}:{thing.__qualname__}"
    return next((name for name, own in READY_MADE.items() if own == path), path)
