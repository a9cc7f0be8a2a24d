"""A setting as a dataclass field: described once, beside its type and default; flags and `--help` are made of it."""

from dataclasses import field
from typing import Any


def option(default: Any, text: str, **more: Any) -> Any:
    """A field with its default and its help; `choices`, where it has them, are argparse's."""
    return field(default=default, metadata={"help": text, **more})
