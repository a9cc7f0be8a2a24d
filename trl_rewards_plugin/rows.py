"""Rows of a file of texts (lines, JSON, CSV, parquet): the one reader, so that every command counts them alike.

A line ends at LF, CR LF or CR and nowhere else (U+2028, U+0085 and form feeds belong to the text), a byte order mark
is no text, and what a text column holds is taken as it is: "NA" and "null" are texts. `read_rows` has one slice in
memory, whatever the size. Leaves out: data sets of the Hub, and what the rows mean.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from trl_rewards_plugin.errors import InputError, nearest

Row = dict[str, Any]

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "lines",
}
"""Ending of a file -> how it is read."""

STDIN = "-"


def existing_file(name: str | Path) -> Path:
    """The file of this name.

    Raises:
        InputError: there is none; a near name beside it is suggested.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    siblings = sorted(one.name for one in path.parent.iterdir()) if path.parent.is_dir() else []
    near = next((one for one in siblings if Path(one).stem == path.stem), None) or nearest(path.name, siblings)
    raise InputError(
        f"the file {name}", "no such file", "check the path" if near is None else f"did you mean {near!r}?"
    )


def format_of(source: str, given: str | None = None) -> str:
    """How to read `source`: as `given`, else as its ending says; standard input holds lines.

    Raises:
        InputError: an unknown ending or format, no such file, or parquet from standard input.
    """
    known = sorted(set(FORMATS.values()))
    if given is not None and given not in known:
        raise InputError(f"an input format, one of {', '.join(known)}", repr(given), "use one of these")
    if source == STDIN:
        if given == "parquet":
            raise InputError("lines, jsonl or csv from standard input", "parquet", "give the file's path")
        return given or "lines"
    form = given or FORMATS.get(existing_file(source).suffix.lower())
    if form is None:
        endings = ", ".join(FORMATS)
        raise InputError(f"an input file that ends in {endings}", source, "say how to read it: --input-format jsonl")
    return form


def read_columns(path: Path, text_column: str) -> dict[str, list[Any]]:
    """A whole file by column, None where a row lacks one; nothing where it has no rows.

    A CSV column of numbers, or of true and false, comes as such, its empty fields None; the text column stays text.

    Raises:
        InputError: no such file, another ending, or as `read_rows`.
    """
    form = format_of(str(path))
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(read_rows(str(path), form, text_column)):
        for name in row:
            if name not in columns:
                columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
    if form == "csv":
        return {name: values if name == text_column else _typed(values) for name, values in columns.items()}
    return columns


def read_rows(source: str, form: str, text_column: str) -> Iterator[Row]:
    """The rows of `source`, a path or "-" for standard input, from the first on.

    Args:
        form: "lines" (each line a row, its one column `text_column`), "jsonl" (an object on each line, or one list of
            objects), "csv" (with a header; every field is text) or "parquet".

    Raises:
        InputError: what is read is not of this form; the line is named.
    """
    if form == "parquet":
        yield from _parquet_rows(source)
        return
    if source == STDIN:
        sys.stdin.reconfigure(encoding="utf-8-sig", newline="")  # type: ignore[union-attr]
        yield from _text_rows(sys.stdin, source, form, text_column)
        return
    with open(Path(source).expanduser(), encoding="utf-8-sig", newline="") as stream:
        yield from _text_rows(stream, source, form, text_column)


def _text_rows(stream: IO[str], source: str, form: str, text_column: str) -> Iterator[Row]:
    try:
        if form == "lines":
            for line in stream:
                yield {text_column: line.rstrip("\r\n")}
        elif form == "jsonl":
            yield from _json_rows(stream, source)
        else:
            yield from _csv_rows(stream, source)
    except UnicodeDecodeError as error:
        raise InputError(f"UTF-8 text in {_shown(source)}", str(error), "convert the file to UTF-8") from error


def _json_rows(lines: IO[str], source: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        is_list = number == 1 and line.lstrip().startswith("[")
        try:
            value = json.loads(line + lines.read() if is_list else line.rstrip("\r\n"))
        except RecursionError as error:
            where = f"line {number} of {_shown(source)}"
            raise InputError(f"JSON in {where}", "lists or objects nested too deeply", "mend that line") from error
        except json.JSONDecodeError as error:
            where = f"line {number + error.lineno - 1} of {_shown(source)}"
            raise InputError(f"JSON in {where}", f"{error.msg} at column {error.colno}", "mend that line") from error
        for row in value if is_list else [value]:
            if not isinstance(row, dict):
                found = f"{type(row).__name__} in line {number}"
                step = 'write {"text": ...} on each line'
                raise InputError(f"a JSON object a line in {_shown(source)}", found, step)
            yield row


def _csv_rows(lines: Iterable[str], source: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) < len(header):
            raise InputError(f"columns of different names in {_shown(source)}", ", ".join(header), "rename one")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                found = f"{len(fields)} in line {reader.line_num}"
                raise InputError(f"{len(header)} fields a row in {_shown(source)}", found, "quote fields with commas")
            yield dict(zip(header, fields, strict=True))
    except csv.Error as error:
        found = f"{error}, line {reader.line_num}"
        raise InputError(f"CSV in {_shown(source)}", found, "mend that line") from error


def _typed(fields: list[str]) -> list[Any]:
    """A CSV column as whole numbers, else as numbers, else as booleans, else as it is."""
    import pyarrow

    filled = pyarrow.array([field or None for field in fields], pyarrow.string())
    for kind in (pyarrow.int64(), pyarrow.float64(), pyarrow.bool_()):
        try:
            values: list[Any] = filled.cast(kind).to_pylist()
        except pyarrow.ArrowInvalid:
            continue
        return values
    return fields


def _parquet_rows(source: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=1_024):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        found = str(error).splitlines()[0]
        raise InputError(f"a whole parquet file {source}", found, "write the file again") from error


def _shown(source: str) -> str:
    return "standard input" if source == STDIN else source
