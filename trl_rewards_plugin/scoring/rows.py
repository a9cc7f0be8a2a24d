"""Rows of a table, one at a time, from lines, JSONL, CSV or parquet; whatever the size, one slice is in memory.

Leaves out: data sets of the Hub, and what is in the rows.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from trl_rewards_plugin.errors import InputError

Row = dict[str, Any]

FORMATS = {".txt": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
STDIN = "-"


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
    path = Path(source)
    if not path.is_file():
        near = sorted(one.name for one in path.parent.glob(f"{path.stem}.*"))[:5] if path.parent.is_dir() else []
        step = f"did you mean {', '.join(near)}?" if near else "check the path"
        raise InputError("an input file", f"no file {source}", step)
    form = given or FORMATS.get(path.suffix.lower())
    if form is None:
        endings = ", ".join(FORMATS)
        raise InputError(f"an input file that ends in {endings}", source, "say how to read it: --input-format jsonl")
    return form


def read_rows(source: str, form: str, text_column: str) -> Iterator[Row]:
    """The rows of `source`, a path or "-" for standard input, from the first on.

    Args:
        form: "lines" (each line a row, its one column `text_column`), "jsonl", "csv" (with a header) or "parquet".

    Raises:
        InputError: what is read is not of this form; the line is named.
    """
    if form == "parquet":
        yield from _parquet_rows(source)
        return
    if source == STDIN:
        sys.stdin.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
        yield from _text_rows(sys.stdin, source, form, text_column)
        return
    with open(source, encoding="utf-8-sig", newline="") as stream:
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


def _json_rows(lines: Iterable[str], source: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            where = f"line {number} of {_shown(source)}"
            raise InputError(f"JSON in {where}", str(error), "mend that line, or read --input-format lines") from error
        if not isinstance(row, dict):
            found = f"{type(row).__name__} in line {number}"
            raise InputError(f"a JSON object a line in {_shown(source)}", found, 'write {"text": ...} on each line')
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
