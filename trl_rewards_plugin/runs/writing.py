"""The kinds of files in a run folder, each written whole or not at all (`atomic.py`)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_rewards_plugin.atomic import explained, replacing, write_text


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Indented JSON; NaN is an error here, because most readers of JSON refuse it."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """YAML in the given order."""
    import yaml

    write_text(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def write_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line, in place of what was there."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows to what `write_log` wrote. A kill may tear the last line, which readers leave out."""
    with explained(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A parquet file of columns of N values each; one of mixed kinds, or with lone surrogates, is written as text."""
    import pyarrow
    import pyarrow.parquet

    def column(values: Sequence[Any]) -> pyarrow.Array:
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, UnicodeEncodeError):
            texts = [None if value is None else str(value) for value in values]
            return pyarrow.array([text and text.encode("utf-8", "backslashreplace").decode() for text in texts])

    table = pyarrow.table({name: column(values) for name, values in columns.items()})
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A parquet file of rows; what a row lacks is missing there."""
    names = dict.fromkeys(name for row in rows for name in row)
    write_table(path, {name: [row.get(name) for row in rows] for name in names})
