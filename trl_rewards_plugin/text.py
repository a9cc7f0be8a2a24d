"""Numbers and counts in words, as a card tells them. Leaves out: what they are of."""

from __future__ import annotations

from collections.abc import Sequence

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def number(value: float | None, form: str = ".3f") -> str:
    """`value` in `form` with a real minus sign, 0 without any; a dash where nothing was measured."""
    if value is None:
        return DASH
    told = format(value, form)
    return told.lstrip("+-") if float(told) == 0 else told.replace("-", MINUS)


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
