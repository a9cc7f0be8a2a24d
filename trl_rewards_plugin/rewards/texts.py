"""What TRL hands a reward (texts, or lists of chat messages) -> plain texts, and how errors quote them.

Leaves out: chat templates; a classifier reads what was said, not the markup around it.
"""

from collections.abc import Sequence
from typing import Any

from trl_rewards_plugin.errors import InputError


def as_texts(items: Any, what: str = "completions") -> list[str]:
    """N texts: each item itself, or the content of its last message where it is a list of chat messages.

    Args:
        items: N texts, or N lists of `{"role": ..., "content": ...}`. Empty texts are fine.
        what: The argument's name, for the error.

    Raises:
        InputError: `items` is one string or no list at all, or an item is neither form (its index is named).
    """
    if isinstance(items, str) or not isinstance(items, Sequence):
        hint = f"pass {what}=[text]" if isinstance(items, str) else f"pass {what} as a list of texts"
        raise InputError(f"{what} as a list of texts or of chat messages", _shown(items), hint)
    return [_as_text(item, f"{what}[{index}]") for index, item in enumerate(items)]


def paired_texts(prompts: Any, completions: list[str]) -> list[str] | None:
    """The prompts as texts, one per completion; None where there are none.

    Raises:
        InputError: there are not as many prompts as completions, or as `as_texts`.
    """
    if prompts is None:
        return None
    texts = as_texts(prompts, "prompts")
    if len(texts) != len(completions):
        raise InputError(
            f"{len(completions)} prompts, one for each completion",
            f"{len(texts)} prompts",
            "repeat each prompt once per completion",
        )
    return texts


def column_texts(
    column: str, count: int, prompts: Sequence[Any] | None, columns: dict[str, Any], name: str
) -> list[str | None]:
    """The texts of a column of the data set ("prompt" for the prompts), None where the column has none.

    Raises:
        InputError: no such column, or not one text for each of `count` completions.
    """
    offered = {**columns, **({} if prompts is None else {"prompt": prompts})}
    if column not in offered:
        raise InputError(
            f"the column {column!r}, with which reward {name!r} compares",
            f"only {', '.join(offered) or 'completions'}",
            f"pass {'prompts' if column == 'prompt' else column}=, or name another column",
        )
    values = offered[column]
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        raise InputError(
            f"{count} values in {column!r}, one for each completion",
            f"{len(values)}" if isinstance(values, Sequence) else type(values).__name__,
            f"repeat each value of {column!r} once per completion",
        )
    filled = iter(as_texts([value for value in values if value is not None], column))
    return [None if value is None else next(filled) for value in values]


def _as_text(item: Any, where: str) -> str:
    content = item
    if isinstance(item, Sequence) and not isinstance(item, str) and item and isinstance(item[-1], dict):
        content = item[-1].get("content")
        # Multimodal templates split the content into parts; the text parts are what a text classifier can read.
        if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
            content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise InputError(
            "a text, or chat messages of which the last has a text as its content",
            f"{where} is {_shown(item)}",
            "turn missing values into '' or drop those rows before they reach the reward",
        )
    return content


def _shown(item: Any) -> str:
    return f"{type(item).__name__} {str(item)[:80]!r}"


def shortened(text: str, limit: int = 200) -> str:
    """`text` quoted, cut to `limit` characters for an error message."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def first_of(texts: Sequence[str]) -> str:
    """The first text, quoted and shortened."""
    return shortened(texts[0]) if texts else "no texts at all"


def called_on(texts: Sequence[str]) -> str:
    """How many texts a reward was called on, and the first of them."""
    return f"it was called on {len(texts)} completions, the first of them {first_of(texts)}"
