"""What TRL hands a reward (texts, or lists of chat messages) -> plain texts and how errors quote them.

Leaves out: chat templates; a classifier reads what was said, not the markup around it.
"""

import numbers
from collections.abc import Sequence
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.text import counted

PROTOCOL = ("prompt", "prompts", "texts", "completion", "completions")
"""Arguments of a reward's own protocol, which no column of a data set may stand in for."""


def as_texts(items: Any, what: str = "completions") -> list[str]:
    """N texts: each item itself, or the content of its last chat message; else InputError, which names `what`."""
    if isinstance(items, str) or not isinstance(items, Sequence):
        hint = f"pass {what}=[text]" if isinstance(items, str) else f"pass {what} as a list of texts"
        raise InputError(f"{what} as a list of texts or of chat messages", _shown(items), hint)
    return [_as_text(item, f"{what}[{index}]") for index, item in enumerate(items)]


def paired_texts(prompts: Any, completions: list[str]) -> list[str] | None:
    """The prompts as texts, one per completion (InputError otherwise); None where there are none."""
    if prompts is None:
        return None
    texts = as_texts(prompts, "prompts")
    if len(texts) != len(completions):
        expected = f"{len(completions)} prompts, one for each completion"
        raise InputError(expected, f"{len(texts)} prompts", "repeat each prompt once per completion")
    return texts


def column_references(
    column: str, count: int, prompts: Sequence[Any] | None, columns: dict[str, Any], name: str
) -> list[str | list[str] | None]:
    """A text, several or None for each row, from a column, or of the prompts ("prompt"); InputError without either."""
    offered = {**columns, **({} if prompts is None else {"prompt": prompts})}
    if column not in offered:
        found = f"only {', '.join(offered) or 'completions'}"
        step = f"pass {'prompts' if column == 'prompt' else column}=, or name another column"
        raise InputError(f"the column {column!r}, with which reward {name!r} compares", found, step)
    values = offered[column]
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        found = f"{len(values)}" if isinstance(values, Sequence) else type(values).__name__
        step = f"repeat each value of {column!r} once per completion"
        raise InputError(f"{count} values in {column!r}, one for each completion", found, step)
    return [_reference(value, f"{column}[{index}]") for index, value in enumerate(values)]


def _reference(value: Any, where: str) -> str | list[str] | None:
    if value is None or (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)):
        return list(value) if value else None
    return _as_text(value, where)


def _as_text(item: Any, where: str) -> str:
    content = item
    if isinstance(item, Sequence) and not isinstance(item, str) and item and isinstance(item[-1], dict):
        content = item[-1].get("content")
        # Multimodal templates split the content into parts; the text parts are what a text classifier can read.
        if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
            content = "".join(part["text"] for part in content)
    if isinstance(content, str):
        return content
    step = "turn missing values into '' or drop those rows before they reach the reward"
    if isinstance(item, numbers.Number):
        step = "name the column that holds the texts, or turn the numbers into texts with str()"
    elif isinstance(item, list | tuple) and item and isinstance(item[0], str):
        step = "pass one text per row: join the list, or choose one of its texts"
    expected = "a text, or chat messages of which the last has a text as its content"
    raise InputError(expected, f"{where} is {_shown(item)}", step)


def _shown(item: Any) -> str:
    return f"{type(item).__name__} {str(item)[:80]!r}"


def shortened(item: Any, limit: int = 200) -> str:
    """A text, quoted, or chat messages, cut to `limit` characters for an error message."""
    text = item if isinstance(item, str) else repr(item)
    short = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return repr(short) if isinstance(item, str) else short


def called_on(completions: Sequence[Any]) -> str:
    """How many completions a reward was called on, and the first of them."""
    first = shortened(completions[0]) if completions else "no texts at all"
    return f"it was called on {counted(len(completions), 'completion')}, the first of them {first}"


def valid_unicode(text: str) -> str:
    """`text` itself, or one without surrogates, which no tokenizer reads: pairs are their character, others U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
