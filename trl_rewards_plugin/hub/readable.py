"""The text in a file of an upload, in the forms in which a search finds it.

Whatever the format, escapes of JSON, YAML, Python and URLs are undone, also nested ones; UTF-16 and UTF-32 are read,
and characters without a width dropped. Of parquet all texts and bytes are read, names and metadata too, of pictures
the notes. Leaves out, so that a search does not see it: the numbers in weights, compressed or base64-encoded text,
and a word that is broken over two lines.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.outgoing import UploadFile

_ESCAPE = re.compile(
    rb"\\u(?P<u>[0-9a-fA-F]{4})|\\U(?P<U>[0-9a-fA-F]{8})|\\x(?P<x>[0-9a-fA-F]{2})|%(?P<p>[0-9a-fA-F]{2})"
    rb"|\\(?P<fold>\r?\n[ \t]*)|\\(?P<c>.)"
)
_WITHOUT_WIDTH = ("\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")
# Escapes in escapes in escapes: a notebook with JSON in its output.
_DEPTH = 3


def forms(file: UploadFile) -> list[bytes]:
    """The text in `file` as it is, and with everything undone that may hide a word; damaged files are refused."""
    content = searchable(file)
    decoded = content.replace(b"\0", b"")  # ASCII in UTF-16 and UTF-32
    for _ in range(_DEPTH):
        decoded, before = _ESCAPE.sub(_unescaped, decoded), decoded
        if decoded == before:
            break
    for invisible in _WITHOUT_WIDTH:
        decoded = decoded.replace(invisible.encode(), b"")
    return [content] if decoded == content else [content, decoded]


def searchable(file: UploadFile) -> bytes:
    """The part of a file that can hold text: of weights the header, of parquet and pictures also what is packed."""
    if isinstance(file.content, Path):
        with file.content.open("rb") as stream:
            return stream.read(int.from_bytes(stream.read(8), "little"))
    if file.name.endswith(".parquet"):
        return b"\n".join(_parquet_texts(file))
    if file.name.endswith(".png"):
        return b"\n".join([file.content, *_picture_texts(file)])
    return file.content


def _unescaped(match: re.Match[bytes]) -> bytes:
    digits = match["u"] or match["U"] or match["x"] or match["p"]
    if digits is not None:
        code = int(digits, 16)
        return chr(code).encode("utf-8", "replace") if code < 0x110000 else b" "
    if match["fold"] is not None:
        return b""
    letter = match["c"]
    return b" " if letter in b"nrtbfav0eN_LP" else letter


def _parquet_texts(file: UploadFile) -> Iterator[bytes]:
    """Every text and bytes in a parquet file: values at any depth, names of columns, metadata."""
    import pyarrow
    import pyarrow.parquet

    assert isinstance(file.content, bytes)
    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(file.content)) as table:
            yield from _texts([field.name for field in table.schema_arrow])
            yield from _texts([table.schema.column(index).path for index in range(len(table.schema.names))])
            for metadata in (table.metadata.metadata, table.schema_arrow.metadata):
                yield from _texts(metadata or {})
            for field in table.schema_arrow:
                yield from _texts(field.metadata or {})
            for batch in table.iter_batches(batch_size=1_024):
                yield from _texts(batch.to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        found = (str(error) or type(error).__name__).splitlines()[0]
        step = "write the file again, or leave it out"
        raise InputError(f"a complete parquet file {file.name}", found, step) from error


def _texts(value: Any) -> Iterator[bytes]:
    """The texts and bytes anywhere in `value`."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _picture_texts(file: UploadFile) -> Iterator[bytes]:
    """The notes in a PNG, which may be compressed."""
    from PIL import Image

    assert isinstance(file.content, bytes)
    try:
        with Image.open(io.BytesIO(file.content)) as picture:
            picture.load()
            notes = dict(picture.info)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"a complete picture {file.name}", str(error), "draw it again, or remove it") from error
    yield from _texts(notes)
