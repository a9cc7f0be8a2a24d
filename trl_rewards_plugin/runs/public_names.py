"""Names of models, data and rewards as a person may read them: bundled assets by name, folders without their path."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trl_rewards_plugin.assets import BUNDLED, ROOT
from trl_rewards_plugin.text import mapped

# Keys of a described reward that may name a folder.
_NAMED_BY_PLACE = ("model", "tokenizer", "metric")
# Those that are no path even where they look like one: "/r/askscience" is a fine label.
_WORDS = ("name", "label")


def public_name(name: Any) -> str:
    """`name` without this machine in it; a loaded model is called by what it was loaded from.

    A Hub id stays; a bundled asset is "bundled:..."; an absolute path its last part; a relative path begins with "./",
    so that it is not taken for a Hub id.
    """
    if not isinstance(name, str | Path):
        return public_name(getattr(name, "name_or_path", "") or type(name).__name__)
    text = str(name)
    path = Path(text)
    if path.is_absolute() and path.is_relative_to(ROOT):
        return BUNDLED + path.relative_to(ROOT).as_posix()
    if path.is_absolute() or text.startswith("~"):
        return path.name
    return f"./{path.as_posix()}" if os.path.exists(text) and not text.startswith(".") else text


def given_name(given: Any) -> str | None:
    """The public name of what was given by name; None for an object."""
    return public_name(given) if isinstance(given, str | Path) else None


def public_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A described reward without missing values, this machine's paths and its network's addresses."""
    # The address of a reward server is this network's.
    known = {key: value for key, value in part.items() if value is not None and key != "url"}
    named = {key: public_name(known[key]) for key in _NAMED_BY_PLACE if key in known}
    return {key: value if key in _WORDS else public_value(value) for key, value in (known | named).items()}


def public_value(value: Any) -> Any:
    """A setting, whatever containers it is made of, with the last part of each absolute path in it."""

    def without_place(item: Any) -> Any:
        is_path = isinstance(item, Path) or (isinstance(item, str) and (item.startswith("~") or os.path.isabs(item)))
        return public_name(item) if is_path else item

    return mapped(value, without_place)
