"""Names of rewards, which become columns, metric keys and file names: their alphabet, and suggestions for typos."""

import difflib
import re
from collections.abc import Iterable

from trl_rewards_plugin.errors import InputError

_OUTSIDE = re.compile(r"[^A-Za-z0-9._-]+")


def clean_name(text: str) -> str:
    """`text` with every run of characters outside letters, digits, `_`, `-` and `.` made one `_`; never empty."""
    return _OUTSIDE.sub("_", text).strip("_") or "reward"


def check_name(name: object) -> str:
    """`name` itself where it is of letters, digits, `_`, `-` and `.` only.

    Raises:
        InputError: it is not.
    """
    if not isinstance(name, str) or not name or _OUTSIDE.search(name):
        better = f"for example name={clean_name(str(name))!r}"
        raise InputError("a reward name of letters, digits, '_', '-' and '.'", repr(name), better)
    return name


def did_you_mean(word: object, options: Iterable[str]) -> str:
    """The start of a next step, "did you mean 'x'? ", or "" where nothing is near."""
    by_folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(str(word).casefold(), by_folded, n=1)
    return f"did you mean {by_folded[near[0]]!r}? " if near else ""


def shortened(text: str, limit: int = 200) -> str:
    """`text` quoted, cut to `limit` characters for an error message."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
