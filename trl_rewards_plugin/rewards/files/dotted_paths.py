"""`function:` in reward files: a dotted path <-> what can be imported by it, with short names for our own rewards."""

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean, is_library, is_stdlib, nearest
from trl_rewards_plugin.places import missing_file

READY_MADE = {
    "length": "trl_rewards_plugin.rewards.text_rewards.LengthReward",
    "repetition": "trl_rewards_plugin.rewards.text_rewards.RepetitionReward",
    "similarity": "trl_rewards_plugin.rewards.text_rewards.SimilarityReward",
    "remote": "trl_rewards_plugin.rewards.remote_reward.RemoteReward",
}
"""Short name -> dotted path."""


def imported(name: str, folder: Path = Path()) -> Any:
    """The function or class of a short name, a dotted path or "file.py:name", in `folder` first; else InputError."""
    check_name(name, folder)
    file, _, attribute = name.rpartition(":")
    path = READY_MADE.get(name, name)
    if file.endswith(".py"):
        path = f"{_import_file(python_file(file, folder).resolve())}:{attribute}"
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        module, _, rest = name.replace(":", ".").partition(".")
        is_file = getattr(error, "name", None) == module and python_file(f"{module}.py", folder).is_file()
        raise _not_found(name, error, f"{module}.py:{rest}" if is_file else None) from error


def check_name(name: str, folder: Path = Path()) -> None:
    """Refuses what `imported` cannot find, as far as that shows without importing a module of the user's."""
    if name.endswith(".py") and (whole := python_file(name, folder)).is_file():
        functions = ", ".join(f"{name}:{one}" for one in _defined(_source(whole))) or f"{name}:NAME"
        raise InputError("function as file.py:name", f"{name!r}, a whole file", f"name a function of it: {functions}")
    file = python_file(name.rpartition(":")[0], folder)
    if file.suffix == ".py" and not file.is_file():
        expected = f"the file of {file.name}:name, beside the reward file or in the current folder"
        raise missing_file(expected, f"no file {(folder / file).resolve()}", folder / file)
    if file.suffix == ".py":  # in which that name may stand nowhere, and a near one be defined
        text, (written, _, path) = _source(file), name.rpartition(":")
        attribute = path.partition(".")[0]
        defined = _defined(text)
        may_be_there = rf"\b{re.escape(attribute)}\b|import \*|__getattr__|globals\(|vars\(|exec\(|setattr\("
        if not re.search(may_be_there, text) and (near := nearest(attribute, defined)):
            raise _not_found(name, f"not in that file, which defines {', '.join(defined)}", f"{written}:{near}")
    if not {".", ":"} & set(name) and name not in READY_MADE:
        raise _not_found(name, "not one of these, and a path of one part is a module")


def _source(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _defined(source: str) -> list[str]:
    return re.findall(r"^(?:async +)?(?:def|class) +(\w+)", source, re.MULTILINE)


def python_file(file: str, folder: Path) -> Path:
    """Where the file of "file.py:name" in a reward file of `folder` is looked for: there, else in the current one."""
    beside = folder / file
    return beside if beside.is_file() else Path(file)


def _not_found(name: str, reason: object, near: str | None = None) -> InputError:
    expected = f"function as one of {', '.join(READY_MADE)}, or as package.module.name or file.py:name"
    meant = f"did you mean {near!r}? " if near else did_you_mean(name, READY_MADE)
    step = f"{meant}check the name; a module of yours must be installed or on PYTHONPATH"
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
    return file.stem


def path_of(thing: Any) -> str | None:
    """The name by which `imported` gives back this very function or class, the short one where it has one."""
    path = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', None)}"
    try:
        if path.startswith("__main__.") or pkgutil.resolve_name(path) is not thing:
            return None
    except (ImportError, AttributeError, ValueError):
        return None
    module = sys.modules[thing.__module__]
    file = Path(getattr(module, "__file__", None) or "").resolve()
    # A loose file beside a script, which other programs could not import.
    if (
        "." not in module.__name__
        and file.name == f"{module.__name__}.py"
        and not (is_stdlib(file) or is_library(file))
    ):
        return f"{file}:{thing.__qualname__}"
    return next((name for name, own in READY_MADE.items() if own == path), path)
