"""Names of models, data and rewards as a person may read them: bundled assets by name, folders without their path."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trl_rewards_plugin.assets import BUNDLED, ROOT
from trl_rewards_plugin.text import mapped

# Keys of a reward, and settings of a run, that may name a file or folder.
NAMED_BY_PLACE = ("model", "tokenizer", "metric", "combination")
GIVEN_BY_NAME = ("model", "reward", "held_out_reward", "dataset", "eval_dataset")


def public_name(name: Any) -> str:
    """`name` without this machine in it; a loaded model is called by what it was loaded from.

    A Hub id stays; a bundled asset is "bundled:..."; an absolute path its last part; a relative path begins with "./",
    so that it is not taken for a Hub id.
    """
    if not isinstance(name, str | Path):
        return public_name(getattr(name, "name_or_path", "") or type(name).__name__)
    text, path = str(name), Path(name)
    if path.is_absolute() and path.is_relative_to(ROOT):
        return BUNDLED + path.relative_to(ROOT).as_posix()
    if _is_place(text):
        return path.name
    return f"./{path.as_posix()}" if os.path.exists(text) and not text.startswith(".") else text


def _is_place(text: str) -> bool:
    """Whether `text` says where something lies on this machine, from wherever it is read."""
    return os.path.isabs(text) or text.startswith(("~", "file:"))


def recorded_name(given: Any, folder: Path) -> str | None:
    """The public name of what was given by name, of a path the way from `folder`; None for an object.

    A way into the home folder would say whose it is: its last part alone.
    """
    if not isinstance(given, str | Path):
        return None
    path, here = Path(given).expanduser().resolve(), folder.resolve()
    into_home = path.is_relative_to(Path.home()) > here.is_relative_to(Path.home())
    if into_home or not path.exists() or path.is_relative_to(ROOT):
        return public_name(given)
    way = os.path.relpath(path, here)
    return way if way.startswith("..") else os.path.join(".", way)  # a path that no Hub id looks like


def located(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings in a file in `folder`; names of what lies beside it as paths from here, or full ones outside."""
    beside = {key: folder / str(settings[key]) for key in GIVEN_BY_NAME if settings.get(key)}
    found = {key: path for key, path in beside.items() if path.is_file() or (path.is_dir() and "reward" not in key)}
    return {**settings, **{key: _from_here(path.resolve()) for key, path in found.items()}}


def _from_here(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def shown_name(name: Any) -> Any:
    """A recorded name for a reader elsewhere: of a path its last part."""
    return Path(name).name if isinstance(name, str) and name.startswith(".") else name


def files_named(recorded: Any) -> list[str]:
    """The last parts of all recorded paths in settings and reward files, which a reader elsewhere lacks."""
    if isinstance(recorded, Mapping | list):
        values = recorded.values() if isinstance(recorded, Mapping) else recorded
        return sorted({name for value in values for name in files_named(value)})
    is_path = isinstance(recorded, str) and recorded.startswith(("./", "../"))
    return [re.sub(r"(?<=\.py):.*", "", Path(recorded).name)] if is_path else []


def public_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A described reward without missing values, this machine's paths and its network's addresses."""
    known = {key: value for key, value in part.items() if value is not None and key != "url"}
    known |= {key: public_name(known[key]) for key in NAMED_BY_PLACE if key in known}
    # A name or label is no path even where it looks like one: "/r/askscience" is a fine label.
    return {key: value if key in ("name", "label") else public_value(value) for key, value in known.items()}


def public_value(value: Any) -> Any:
    """A setting, whatever containers it is made of, with the last part of each absolute path in it."""
    if isinstance(value, str | Path):
        return public_name(value) if isinstance(value, Path) or _is_place(value) else value
    return mapped(value, public_value) if isinstance(value, Mapping | list | tuple) else value
