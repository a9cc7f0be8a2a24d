"""Where scored rows go: JSONL, CSV or parquet files from which an interrupted job resumes, or standard output.

A JSONL or CSV file grows with every slice of rows; on resuming, a torn last row is cut off. A parquet file cannot
grow: until the job is done its slices lie in `<output>.parts`.
"""

import csv
import io
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trl_rewards_plugin.atomic import explained, replacing
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.texts import valid_unicode
from trl_rewards_plugin.rows import Row, read_rows


class ScoreOutput:
    """A place for scored rows: a file in one of three formats, or (this class itself) JSONL on standard output."""

    def __init__(self, path: Path):
        self.path = path

    def check(self, rows: Sequence[Row]) -> None:
        """Refuses with an InputError, before any is scored, rows that the format cannot hold beside earlier ones."""

    def existing(self, columns: Sequence[str], *, repair: bool = True) -> Iterator[Row]:
        """The rows that an earlier job left, in order, with `columns`; to `repair` cuts off a torn last one."""
        return iter(())

    def append(self, rows: Sequence[Row]) -> None:
        """Adds rows; once it returns they survive the end of this process."""
        sys.stdout.buffer.write("".join(map(_json_line, rows)).encode())
        sys.stdout.buffer.flush()

    def finish(self) -> None:
        """Completes the file; without any rows it is made."""


def open_output(path: str | None) -> ScoreOutput:
    """The output that a file's ending asks for, else InputError; None is JSONL on standard output."""
    if path is None:
        return ScoreOutput(Path())
    kinds: dict[str, type[ScoreOutput]] = {".jsonl": _JsonLines, ".csv": _Csv, ".parquet": _Parquet}
    kind = kinds.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"an output file that ends in {', '.join(kinds)}", path, "give it one of these endings")
    if Path(path).is_dir():
        raise InputError("a file as output", f"the folder {path}", "give the name of a file in it")
    if not Path(path).parent.is_dir():
        raise InputError("an output file in a folder that exists", path, f"make the folder {Path(path).parent}")
    return kind(Path(path))


class _JsonLines(ScoreOutput):
    """A file of lines, to which rows are added."""

    def existing(self, columns: Sequence[str], *, repair: bool = True) -> Iterator[Row]:
        if not self.path.exists():
            return
        lines, whole = _CountedLines(self.path), 0
        try:
            for row in self.parsed(lines, columns):
                if lines.torn:
                    break
                whole = lines.read
                if row is not None:
                    yield row
        except InputError:
            raise
        except (ValueError, RecursionError, csv.Error) as error:
            # A torn row may be no JSON, or end in an open quote; anything else is not of our making.
            if not (lines.torn or lines.ended):
                raise foreign(self.path, f"{error}, row after byte {whole}") from error
        if whole == 0 < self.path.stat().st_size:
            raise foreign(self.path, "not one whole row")
        if repair:
            os.truncate(self.path, whole)

    def parsed(self, lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row | None]:
        """The rows in `lines`, None for a header."""
        for line in lines:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise foreign(self.path, repr(row)[:80])
            yield row

    def append(self, rows: Sequence[Row]) -> None:
        with explained(self.path), open(self.path, "ab") as stream:
            stream.write(self.written(rows).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def written(self, rows: Sequence[Row]) -> str:
        """The lines to add for these rows."""
        return "".join(map(_json_line, rows))

    def finish(self) -> None:
        self.path.touch()


class _Csv(_JsonLines):
    """The same with rows of CSV under a header."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._header: list[str] | None = None
        self._asked_for: list[str] = []

    def check(self, rows: Sequence[Row]) -> None:
        self._asked_for = self._asked_for or list(rows[0])
        _check_columns(self._asked_for, rows)

    def parsed(self, lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row | None]:
        csv.field_size_limit(sys.maxsize)
        for fields in csv.reader(lines, strict=True):
            if self._header is None:
                self._header = fields
                lacking = [name for name in [*columns, *self._asked_for] if name not in fields]
                if lacking:
                    raise foreign(self.path, f"no column {lacking[0]!r}")
                yield None
            else:
                yield {name: text or None for name, text in zip(self._header, fields, strict=True)}

    def written(self, rows: Sequence[Row]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if self._header is None and rows:
            self._header = list(rows[0])
            writer.writerow(self._header)
        header = self._header or []
        _check_columns(header, rows)
        writer.writerows([flat(row.get(name)) for name in header] for row in rows)
        return text.getvalue()


def _check_columns(header: Sequence[str], rows: Sequence[Row]) -> None:
    further = [name for row in rows for name in row if name not in header]
    if further:
        step = "give the output the ending .jsonl or .parquet"
        raise InputError(f"rows of the columns {', '.join(header)}", f"one with {further[0]}", step)


class _Parquet(ScoreOutput):
    def __init__(self, path: Path):
        super().__init__(path)
        self.parts = path.with_name(f"{path.name}.parts")
        self._count = 0
        self._schema: Any = None

    def check(self, rows: Sequence[Row]) -> None:
        self._table(rows)

    def _table(self, rows: Sequence[Row]) -> Any:
        """The rows as a table whose columns go together with those of every table before."""
        import pyarrow

        # Every column of any row: pyarrow takes those of the first alone.
        names = dict.fromkeys(itertools.chain(*rows))
        try:
            table = pyarrow.Table.from_pylist([{name: _storable(row.get(name)) for name in names} for row in rows])
            known = [table.schema] if self._schema is None else [self._schema, table.schema]
            self._schema = pyarrow.unify_schemas(known, promote_options="permissive")
        except (pyarrow.ArrowException, OverflowError) as error:
            step = "write its values in one type, or give the output the ending .jsonl"
            found = str(error).splitlines()[0]
            raise InputError("values of one type in each column of a parquet file", found, step) from error
        return table

    def existing(self, columns: Sequence[str], *, repair: bool = True) -> Iterator[Row]:
        for file in self._files():
            for row in read_rows(str(file), "parquet", ""):
                self._count += 1
                yield row

    def append(self, rows: Sequence[Row]) -> None:
        import pyarrow.parquet

        self.parts.mkdir(exist_ok=True)
        # Named by the rows before it.
        with replacing(self.parts / f"{self._count:012d}.parquet") as new:
            pyarrow.parquet.write_table(self._table(rows), new)
        self._count += len(rows)

    def _files(self) -> list[Path]:
        import pyarrow.parquet

        parts = sorted(part for part in self.parts.glob("*.parquet") if part.stem.isdecimal())
        if not self.path.exists():
            return parts
        try:
            done = pyarrow.parquet.read_metadata(self.path).num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise foreign(self.path, str(error).splitlines()[0]) from error
        # Parts that are in the file already: the job ended between writing it and removing them.
        return [self.path, *(part for part in parts if int(part.stem) >= done)]

    def finish(self) -> None:
        """Joins the parts, a slice in memory at a time."""
        import pyarrow.parquet

        if not self.parts.is_dir() and self.path.exists():
            return
        files = self._files()
        schemas = [pyarrow.schema([]), *map(pyarrow.parquet.read_schema, files)]
        schema = pyarrow.unify_schemas(schemas, promote_options="permissive").remove_metadata()
        with replacing(self.path) as new, pyarrow.parquet.ParquetWriter(new, schema) as writer:
            for file in files:
                for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1_024):
                    table = pyarrow.Table.from_batches([batch])
                    # The empty table in front has every column, in the schema's order and types.
                    whole = pyarrow.concat_tables([schema.empty_table(), table], promote_options="permissive")
                    writer.write_table(whole.cast(schema))
        shutil.rmtree(self.parts, ignore_errors=True)


class _CountedLines:
    """The lines of a file, with the bytes read so far, and whether the last of them lacks its end."""

    def __init__(self, path: Path):
        self.path = path
        self.read = 0
        self.torn = self.ended = False

    def __iter__(self) -> Iterator[str]:
        with open(self.path, "rb") as stream:
            for line in stream:
                self.read += len(line)
                self.torn = not line.endswith(b"\n")
                # Within a character is where a row may be torn, and nothing else.
                yield line.decode("utf-8", "replace" if self.torn else "strict")
        self.ended = True


def foreign(path: Path, found: str, expected: str = "the rows of an earlier trl-rewards score") -> InputError:
    """The refusal of an output that this very job did not begin."""
    return InputError(f"in {path} {expected}", found, "choose another --output, or delete that file")


def _json_line(row: Row) -> str:
    line = json.dumps(row, ensure_ascii=False, default=str)
    # A lone surrogate has no bytes in UTF-8; JSON has an escape for it.
    return (line if valid_unicode(line) is line else json.dumps(row, default=str)) + "\n"


def flat(value: Any) -> Any:
    """`value` as one field: a text, a number, nothing, or JSON."""
    if value is None or isinstance(value, int | float):
        return value
    return valid_unicode(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _storable(value: Any) -> Any:
    """`value` without lone surrogates, which a table cannot hold."""
    if isinstance(value, dict):
        return {_storable(key): _storable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_storable(one) for one in value]
    return valid_unicode(value) if isinstance(value, str) else value
