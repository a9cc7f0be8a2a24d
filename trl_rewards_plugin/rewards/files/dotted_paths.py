"""`function:` in reward files: a dotted path <-> what can be imported by it, with short names for our own rewards."""

import importlib
import pkgutil
import sys
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
    if not {".", ":"} & set(name) and name not in READY_MADE:
        raise _not_found(name, "not one of these, and a path of one part is a module")


def _not_found(name: str, reason: object) -> InputError:
    expected = f"function as one of {', '.join(READY_MADE)}, or as package.module.name or file.py:name"
    step = f"{did_you_mean(name, READY_MADE)}check the name; a module of yours must be installed or on PYTHONPATH"
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
