"""YAML of unknown origin: plain values, read in bounded time. Leaves out: what they mean."""

from pathlib import Path
from typing import Any

import yaml

from trl_rewards_plugin.errors import InputError

# A few hundred bytes of YAML can stand for billions of values by references, or nest deeper than any reader goes.
DEEPEST = 50
MOST_VALUES = 1_000_000


def load_yaml(text: str) -> Any:
    """The values of a YAML document; no tag makes an object.

    yaml.YAMLError for no YAML, one that nests more than `DEEPEST` levels, contains itself, or unfolds to more than
    `MOST_VALUES` values.
    """
    try:
        values = yaml.load(text, _Bounded)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:  # such as a 31st of June
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error
    size = _unfolded_size(values, {})
    if size > MOST_VALUES:
        raise yaml.YAMLError(f"references that unfold to {size:,} values")
    return values


def read_yaml(path: Path, expected: str, step: str, by_hand: bool = True) -> Any:
    """The values in a YAML file; InputError with these words where they cannot be read.

    Of a file that someone wrote `by_hand` it says how to mend tabs and other encodings, in place of `step`.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        if by_hand and isinstance(error, UnicodeDecodeError):
            step = "save the file as UTF-8"
        elif by_hand and r"'\t'" in str(error):
            step = "indent with spaces, since YAML takes no tabs"
        said = "invalid YAML" if isinstance(error, yaml.YAMLError) else "unreadable"
        raise InputError(expected, said + reason(error), step) from error


def reason(error: Exception) -> str:
    """Where text is no YAML, counted from 1, if that is known, and why; to follow what it is called."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return ": " + " ".join(str(error).replace('in "<unicode string>", ', "").split())
    return f" in line {mark.line + 1}, column {mark.column + 1}: {problem}"


class _Bounded(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels of nesting")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: Any) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES // 100:
            raise yaml.YAMLError(f"a mapping that unfolds to {len(node.value):,} keys")


def _unfolded_size(value: Any, known: dict[int, int]) -> int:
    """How many values a document has when every reference in it is written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES  # met again inside itself: without an end
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_unfolded_size(part, known) for part in parts)
    return known[id(value)]
