"""Text of unknown origin as Markdown: on one line, inside its cell, code span or link, whatever it holds.

Model outputs, names of models and settings are data, never markup: what a reader sees is their letters. Leaves out:
the YAML in front, where `yaml.safe_dump` does the quoting (`metadata.py`).
"""

import re

from trl_rewards_plugin.text import is_hub_id, one_line

CELL_LENGTH = 300
# Each as a character reference: a backslash escape would still end a table cell in some renderers.
_MARKUP = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*[]<>|~$"} | {ord("&"): "&amp;"}


def escape(text: object, limit: int | None = None) -> str:
    """`one_line(text)` with every character that Markdown or HTML would read as markup as a character reference."""
    escaped = one_line(text, limit).translate(_MARKUP)
    # Inside a word it is no markup, and names are full of it.
    escaped = re.sub(r"(?<![^\W_])_|_(?![^\W_])", "&#95;", escaped)
    # A bare address would become a link.
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def quote(text: object, limit: int = CELL_LENGTH) -> str:
    """`text` as a paragraph of a block quote; what begins like a heading, a list or a rule stays text."""
    return "> " + re.sub(r"^[-+=:#\d]", lambda found: f"&#{ord(found[0])};", cell(text, limit))


def cell(text: object, limit: int = CELL_LENGTH) -> str:
    """`text` for a table cell; "(nothing)" where it shows nothing."""
    return escape(text, limit) or "(nothing)"


def code(text: object) -> str:
    """`text` as a code span; as escaped text where a backtick, or a pipe in a table, would end the span."""
    plain = one_line(text, CELL_LENGTH)
    return escape(plain) or "(nothing)" if not plain or "|" in plain or "`" in plain else f"`{plain}`"


def link(name: str, kind: str = "") -> str:
    """A Hub id as a link to its page, `kind` being "datasets/" for data; any other name as code."""
    return f"[{name}](https://huggingface.co/{kind}{name})" if is_hub_id(name) else code(name)


def table(head: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    """A table of ready cells; the columns in `right` are aligned to the right."""
    rule = ["---:" if index in right else "---" for index in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])
