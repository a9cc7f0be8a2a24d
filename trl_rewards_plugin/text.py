"""Numbers, counts, Hub ids and lines of text as people read them. Leaves out: markup (`cards/markdown.py`)."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
DATA_FILES = (
    ".yaml", ".yml", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".py", ".safetensors",
)  # fmt: skip
"""Endings that a Hub id never has."""


def number(value: float | None, form: str = ".3f") -> str:
    """`value` in `form` with a real minus sign, 0 without any; a dash where nothing was measured."""
    if value is None:
        return DASH
    text = format(value, form)
    return text.lstrip("+-") if float(text.rstrip("%")) == 0 else text.replace("-", MINUS)


def interval(ends: Sequence[float | None], form: str = "+.3f") -> str:
    """ "+0.1 to +0.3"; says so where there is none."""
    low, high = ends
    if low is None:
        return "none: too few prompts, or all gains equal"
    return f"{number(low, form)} to {number(high, form)}"


def duration(seconds: float) -> str:
    """ "1 second", "35 seconds", "2.1 minutes", "3.4 hours"."""
    if seconds < 60:
        return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, noun: str) -> str:
    """ "1 output", "2 outputs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def cut_prompts(cuts: Mapping[str, Any]) -> str:
    """ "930 of 1,000 prompts (93 %) are cut to 128 tokens; the model reads 23 % of a cut prompt (median)"."""
    if not cuts["cut"]:
        return f"none of {counted(cuts['prompts'], 'prompt')} is longer than {cuts['limit']} tokens"
    share = f"{cuts['cut']:,} of {counted(cuts['prompts'], 'prompt')} ({cuts['cut'] / max(cuts['prompts'], 1):.0%})"
    kept = f"{cuts['kept'] or 0:.0%}"
    return f"{share} are cut to {cuts['limit']} tokens; the model reads {kept} of a cut prompt (median)"


def one_line(text: object, limit: int | None = None) -> str:
    """`text` on one line of printable characters: white space joined, control and direction marks removed.

    Without the marks (categories Cc, Cf, Cs, Co, Cn of Unicode) nothing can reverse the rest of the page; letters of
    right-to-left scripts stay. More than `limit` characters end in " ...".
    """
    printable = (letter for letter in str(text) if letter.isspace() or unicodedata.category(letter)[0] != "C")
    kept = " ".join("".join(printable).split())
    return kept if limit is None or len(kept) <= limit else kept[: limit - 4].rstrip() + " ..."


def printable(text: str) -> str:
    """`text` as a terminal may show it: without the control characters of `one_line`, but for line breaks and tabs."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter)[0] != "C")


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` made to whatever is in its dicts, lists and tuples, which become plain ones."""
    if isinstance(value, Mapping):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mapped(item, change) for item in value]
    return change(value)


def is_hub_id(name: str | None) -> bool:
    """Whether `name` reads owner/name and is not the name of a data file."""
    return bool(name and _HUB_ID.fullmatch(name) and not name.lower().endswith(DATA_FILES) and ".." not in name)
