"""Files that are written whole or not at all: beside their place, through to the disk, then renamed.

A process that is killed, or a disk that is full, leaves the old file as it was. Leaves out: what the files hold.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import TEMPORARY

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to; it takes `path`'s place when the block ends, and is removed if it fails.

    It has the permissions of the file that it replaces. A link is followed; a device or pipe is written to directly.

    Raises:
        InputError: the disk is full, or the place cannot be written to.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise InputError("a file to write", f"the folder {path}", "give the name of a file")
    with _explained(path):
        if place.exists() and not place.is_file():
            yield place
            return
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is write-protected")
        temporary = place.with_name(f".{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
        try:
            temporary.touch(exist_ok=False)  # with the permissions that the umask gives
            if place.exists():
                temporary.chmod(stat.S_IMODE(place.stat().st_mode))
            yield temporary
            flush(temporary)
            os.replace(temporary, place)
            flush(place.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """`content` as a file."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """`text` as a file in UTF-8."""
    write_bytes(path, _as_utf8(text))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Indented JSON; NaN is an error here, because most readers of JSON refuse it."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """YAML in the given order."""
    import yaml

    write_text(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def write_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line, in place of what was there."""
    write_text(path, _json_lines(rows))


def append_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds rows to what `write_log` wrote. A kill may tear the last line, which readers leave out."""
    with _explained(path), path.open("a", encoding="utf-8") as file:
        file.write(_json_lines(rows))


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A parquet file of columns of N values each; one of mixed kinds, or with lone surrogates, is written as text."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({name: _column(values) for name, values in columns.items()})
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A parquet file of rows; what a row lacks is missing there."""
    names = dict.fromkeys(name for row in rows for name in row)
    write_table(path, {name: [row.get(name) for row in rows] for name in names})


def flush(path: Path) -> None:
    """Has the system write a file or folder through to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot, for a folder; the files in it count
            raise


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _as_utf8(text: str) -> bytes:
    """A lone surrogate, which has no bytes in UTF-8, becomes its escape."""
    return text.encode("utf-8", "backslashreplace")


def _column(values: Sequence[Any]) -> Any:
    import pyarrow

    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, UnicodeEncodeError):
        return pyarrow.array([None if value is None else _as_utf8(str(value)).decode() for value in values])


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Failures of the file system in three parts."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            step = "make room, or write to another disk, and run the same again; what was there before is untouched"
            raise InputError(f"room on the disk for {path}", error.strerror or str(error), step) from error
        step = "check that the folder exists and that you may write there, or choose another place"
        raise InputError(f"a place where {path} can be written", error.strerror or str(error), step) from error
