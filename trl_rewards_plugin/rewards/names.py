"""Names of rewards, which become columns, metric keys and file names, and their alphabet."""

import re
from collections.abc import Iterable

from trl_rewards_plugin.errors import InputError

_OUTSIDE = re.compile(r"[^A-Za-z0-9._-]+")


def clean_name(text: str) -> str:
    """`text` with every run of characters outside letters, digits, `_`, `-` and `.` made one `_`; never empty."""
    return _OUTSIDE.sub("_", text).strip("_") or "reward"


def check_name(name: object) -> str:
    """`name` itself; InputError where it is not of letters, digits, `_`, `-` and `.` only."""
    if not isinstance(name, str) or not name or _OUTSIDE.search(name):
        better = f"for example name={clean_name(str(name))!r}"
        raise InputError("a reward name of letters, digits, '_', '-' and '.'", repr(name), better)
    return name


def total_name(default: str, components: Iterable[str]) -> str:
    """`default`, or `<default>_total` where a component has that name: a total is no component's column."""
    return f"{default}_total" if default in components else default
