"""Rows of a file of texts (lines, JSON, CSV, TSV, parquet): the one reader, so that every command counts them alike.

A line ends at LF, CR LF or CR and nowhere else (U+2028, U+0085 and form feeds belong to the text), a byte order mark
is no text, and what a text column holds is taken as it is: "NA" and "null" are texts. Missing is a null of JSON or
parquet, a key that a JSON object lacks, and an empty cell of CSV or TSV, which know no other null: all are None here.
`read_rows` has one slice in memory, whatever the size. Leaves out: data sets of the Hub, and what the rows mean.
"""

import csv
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from trl_rewards_plugin.errors import InputError, check_choice, did_you_mean, nearest
from trl_rewards_plugin.options import option
from trl_rewards_plugin.places import check_hub_name, missing_file

Row = dict[str, Any]

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    ".txt": "lines",
}  # fmt: skip
"""Ending of a file -> how it is read."""

STDIN = "-"
_PLACE = "\0place"  # key of a row's own number beside its columns, none of which is called so
MISSING = ("error", "skip", "empty")
SKIP = "--missing skip (leave such rows out) or "  # no advice where rows of several files belong together
_PROMPTS = "filter such rows out; for conversations use Seq2SeqPPOTrainer directly"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def missing_option() -> Any:
    """The field `missing` of a command's settings, and so its flag `--missing`."""
    text = "Rows whose text is missing (null in JSON or parquet, an empty cell of a CSV): 'error' refuses the file, "
    text += "'skip' leaves them out, 'empty' reads them as ''."
    return option("error", text, choices=list(MISSING))


def without_missing(rows: Iterable[Row], columns: Sequence[str], missing: str, source: str) -> Iterator[Row]:
    """`rows` in which each of `columns` holds a value; what becomes of others `missing`, one of MISSING, says.

    With "error" that is an InputError, which names the row's number, from 1.
    """
    check_choice("missing", missing, MISSING)
    for number, row in enumerate(rows, 1):
        gaps = [column for column in columns if row.get(column) is None]
        if gaps and missing == "error":
            raise _no_text(gaps[0], source, f"none in row {number}")
        if not gaps:
            yield row
        elif missing == "empty":
            yield {**row, **dict.fromkeys(gaps, "")}


def _no_text(column: str, source: str, found: str) -> InputError:
    step = f"write one there, or pass {SKIP}--missing empty (read them as '')"
    return InputError(f"a text in column {column!r} of {source}", f"{found} (rows of data, counted from 1)", step)


def column_texts(
    values: Sequence[Any], column: str, missing: str, source: str, *, blank: bool | None = None, step: str = _PROMPTS
) -> dict[int, str]:
    """Place from 0 -> text of each row of a column `values`; `missing` as in `without_missing`.

    InputError for no rows, or one that holds no text, or none but white space unless `blank`, by default for "empty";
    `step` is the advice, by default that for prompts.
    """
    gaps = [number for number, text in enumerate(values, 1) if text is None]
    if missing == "error" and len(gaps) > 1:
        raise _no_text(column, source, f"none in {len(gaps)} rows, the first of them row {gaps[0]}")
    numbered = ({column: text, _PLACE: place} for place, text in enumerate(values))
    texts = {row[_PLACE]: row[column] for row in without_missing(numbered, [column], missing, source)}
    if not texts:
        raise no_rows(source, skipped=len(values))
    for place, text in texts.items():
        if not isinstance(text, str) or not (text.strip() or (missing == "empty" if blank is None else blank)):
            expected = f"a text in every row of the column {column!r} of {source}"
            raise InputError(expected, f"{text!r} in row {place + 1}"[:200], step)
    return texts


def check_held_out(train: Sequence[str], held_out: Sequence[str], name: str) -> None:
    """Refuses held-out texts that are all among those of training, from `name`."""
    if set(held_out) <= set(train):
        step = "give other rows, or leave eval_dataset out (--eval_dataset): a tenth of the rows is then held out"
        raise InputError("held-out rows that training does not see", f"all {len(held_out)} of them among {name}", step)


def prompt_columns(path: Path, name: str, text_column: str) -> dict[str, list[Any]]:
    """As `read_columns`, of a file of prompts, called `name`; refused if it has no rows, or not the column."""
    columns = read_columns(path, text_column)
    if path.suffix.lower() == ".txt" and columns:
        # One column and one prompt a line: there is nothing to choose, and blank lines are only spacing.
        columns = {text_column: [text for text in columns[text_column] if text.strip()]}
    if not columns:
        raise no_rows(name)
    check_column(text_column, columns, name)
    return columns


def existing_file(name: str | Path, expected: str = "a file of texts", shown: str | None = None) -> Path:
    """The file of this name; InputError where there is none, with a near name beside it.

    The error calls a folder as it is `shown`, where `name` is not what the user gave.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        names = sorted(inside.name for inside in path.iterdir() if inside.suffix.lower() in FORMATS)
        files = f": {', '.join(names[:5])}" if names else ""
        raise InputError(expected, f"the folder {shown or str(name)!r}", f"give one of its files{files}")
    raise missing_file(f"the file {name}", "no such file", path)


def format_of(source: str, given: str | None = None) -> str:
    """How to read `source`: as `given`, else as its ending says, else InputError; standard input holds lines."""
    if given is not None:
        check_choice("input format", given, sorted(set(FORMATS.values())))
    if source == STDIN:
        if given == "parquet":
            raise InputError("lines, jsonl, csv or tsv from standard input", "parquet", "give the file's path")
        return given or "lines"
    form = given or FORMATS.get(existing_file(source).suffix.lower())
    if form is None:
        endings = ", ".join(FORMATS)
        raise InputError(f"an input file that ends in {endings}", source, "say how to read it: --input_format jsonl")
    return form


def data_file(name: str) -> Path | None:
    """The file of texts called `name`; None where that is the id of a data set on the Hub, InputError for neither."""
    path = Path(name).expanduser()
    if path.suffix.lower() in FORMATS or path.is_dir():
        return existing_file(name, "a data file or a Hub id")
    expected = f"a Hub id (owner/name) or a file ending in {', '.join(FORMATS)}"
    if path.exists() or not _HUB_ID.fullmatch(name):
        raise InputError(expected, repr(name), "rename or convert the file" if path.exists() else "check the spelling")
    check_hub_name(name, expected)
    return None


def from_data_frame(given: Any) -> str | None:
    """How `datasets` makes a Dataset of a data frame; None for anything else."""
    library = type(given).__module__.partition(".")[0]
    is_frame = type(given).__name__ == "DataFrame" and library in ("pandas", "polars")
    return f"Dataset.from_{library}(df)" if is_frame else None


def no_rows(name: str, skipped: int = 0) -> InputError:
    """The error for a file or data set without a row, or with none but the `skipped` ones."""
    empty = "an empty file or data set, or only a header"
    found = f"{skipped} without a text, which were skipped" if skipped else empty
    return InputError(f"rows in {name}", found, "give a file or data set with rows")


def check_column(text_column: str, columns: Mapping[str, Sequence[Any]], name: str) -> None:
    """Refuses a data set, called `name`, that lacks the column of the texts; proposes one by name, else by length."""
    if text_column not in columns:
        sizes = {column: sum(map(len, map(str, values[:100]))) for column, values in columns.items()}
        meant = nearest(text_column, columns) or max(sizes, key=sizes.__getitem__, default="NAME")
        step = f"name the column of the texts with text_column (--text_column {shlex.quote(meant)})"
        found = ", ".join(columns) or "no columns"
        raise InputError(f"the column {text_column!r} in {name}", found, did_you_mean(text_column, columns) + step)


def read_columns(path: Path, text_column: str) -> dict[str, list[Any]]:
    """A whole file by column, None where a row lacks one; nothing where it has no rows. Errors as `read_rows`.

    A CSV column of numbers, or of true and false, comes as such; the text column stays text.
    """
    form = format_of(str(path))
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(read_rows(str(path), form, text_column)):
        for name in row:
            if name not in columns:
                columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
    if form in _DELIMITERS:
        return {name: values if name == text_column else _typed(values) for name, values in columns.items()}
    return columns


def read_rows(source: str, form: str, text_column: str) -> Iterator[Row]:
    """The rows of `source`, a path or "-" for standard input, from the first on.

    `form` is "lines" (each line a row, its one column `text_column`), "jsonl" (an object on each line, or one list of
    objects), "csv" or "tsv" (with a header; every cell is a text or None) or "parquet". InputError, which names the
    line, for what is not of this form.
    """
    if form == "parquet":
        yield from _parquet_rows(source)
    elif source == STDIN:
        sys.stdin.reconfigure(encoding="utf-8-sig", newline="")  # type: ignore[union-attr]
        yield from _text_rows(sys.stdin, source, form, text_column)
    else:
        with open(Path(source).expanduser(), encoding="utf-8-sig", newline="") as stream:
            yield from _text_rows(stream, source, form, text_column)


def _text_rows(stream: IO[str], source: str, form: str, text_column: str) -> Iterator[Row]:
    shown = "standard input" if source == STDIN else source
    try:
        if form == "lines":
            for line in stream:
                yield {text_column: line.rstrip("\r\n")}
        elif form == "jsonl":
            yield from _json_rows(stream, shown)
        else:
            yield from _cell_rows(stream, shown, form, text_column)
    except UnicodeDecodeError as error:
        wide = error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = f"the byte 0x{error.object[error.start]:02x}, as in {'UTF-16' if wide else 'Windows-1252 or Latin-1'}"
        # Latin-1 differs by control characters alone, where Windows-1252 has its curly quotes.
        names = "" if source == STDIN else f" {shlex.quote(shown)} > converted{Path(shown).suffix}"
        step = f"convert it: iconv -f {'utf-16' if wide else 'windows-1252'} -t utf-8{names}"
        raise InputError(f"UTF-8 text in {shown}", found, step) from error


def _json_rows(lines: IO[str], shown: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        is_list = number == 1 and line.lstrip().startswith("[")
        try:
            value = json.loads(line + lines.read() if is_list else line.rstrip("\r\n"))
        except (RecursionError, ValueError) as error:
            where, found = number, str(error)
            if isinstance(error, json.JSONDecodeError):
                where, found = number + error.lineno - 1, f"{error.msg} at column {error.colno}"
            elif isinstance(error, RecursionError):
                found = "lists or objects nested too deeply"
            raise InputError(f"JSON in line {where} of {shown}", found, "fix that line") from error
        for row in value if is_list else [value]:
            if not isinstance(row, dict):
                found = f"{type(row).__name__} in line {number}"
                raise InputError(f"one JSON object per line in {shown}", found, 'write {"text": ...} on each line')
            yield row


def _cell_rows(lines: Iterable[str], shown: str, form: str, text_column: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, strict=True, delimiter=_DELIMITERS[form])
    try:
        header = next((fields for fields in reader if fields), None)
        if header is None:
            return
        _check_header(header, shown, form, text_column)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                found = f"{len(fields)} in line {reader.line_num}"
                raise InputError(f"{len(header)} fields per row in {shown}", found, "quote fields with commas")
            yield {name: text or None for name, text in zip(header, fields, strict=True)}
    except csv.Error as error:
        raise InputError(f"{form.upper()} in {shown}", f"{error}, line {reader.line_num}", "fix that line") from error


def _check_header(header: list[str], shown: str, form: str, text_column: str) -> None:
    if len(set(header)) < len(header):
        raise InputError(f"columns with different names in {shown}", ", ".join(header), "rename one")
    if len(header) > 1 or text_column in header:
        return
    # One column alone, which is not the one of the texts: the file is likely to have another separator.
    read = f"read_csv({shown!r}, sep=';', dtype=str, keep_default_na=False)"
    rewrite = f"python -c \"import pandas as p; p.{read}.to_csv('converted{Path(shown).suffix}', index=False)\""
    steps = {
        ";": ("semicolons", f"write it with commas: {rewrite}"),
        "\t": ("tabs", "give it the ending .tsv, or say --input_format tsv"),
        ",": ("commas", "give it the ending .csv, or say --input_format csv"),
    }
    for separator, (kind, step) in steps.items():
        if separator in header[0]:
            expected = f"{steps[_DELIMITERS[form]][0]} between the fields of {shown}"
            raise InputError(expected, f"{kind}: {header[0][:80]!r}", step)


def _typed(fields: list[str | None]) -> list[Any]:
    """A CSV column as whole numbers, else as numbers, else as booleans, else as it is."""
    import pyarrow

    for kind in (pyarrow.int64(), pyarrow.float64(), pyarrow.bool_()):
        try:
            values: list[Any] = pyarrow.array(fields, pyarrow.string()).cast(kind).to_pylist()
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
    except (pyarrow.ArrowException, OSError, MemoryError, ValueError) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"a complete parquet file {source}", found, "write the file again, or restore it") from error
