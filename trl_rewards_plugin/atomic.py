"""Files that are written whole or not at all: beside their place, through to the disk, then renamed.

A process that is killed, or a disk that is full, leaves the old file as it was. Leaves out: what the files hold.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trl_rewards_plugin.errors import InputError

TEMPORARY = ".unfinished"  # how the hidden name of a file that is still being written ends
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to; it takes `path`'s place when the block ends, and is removed if it fails.

    It has the permissions of the file that it replaces. A link is followed; a device or pipe is written to directly.
    InputError where the disk is full, or the place cannot be written to.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise InputError("a file to write", f"the folder {path}", "give the name of a file")
    with explained(path):
        if path.exists() and not path.is_file():
            # Held open meanwhile: a pipe that nobody reads is an error here, and would block for ever.
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
            try:
                yield path
            finally:
                os.close(descriptor)
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


def write_text(path: Path, text: str) -> None:
    """`text` as a file in UTF-8, where a lone surrogate, which has no bytes, becomes its escape."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def flush(path: Path) -> None:
    """Has the system write a file or folder through to the disk."""
    is_folder = path.is_dir()
    # Some network file systems cannot, for a folder; the files in it count.
    with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk has no room; of safetensors' and torch's errors, which have no number, by the message."""
    by_message = any(words in str(error) for words in ("No space left on device", "unexpected pos"))
    return getattr(error, "errno", None) in _NO_ROOM or by_message


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Failures of the file system to write `path`, in three parts."""
    try:
        yield
    except OSError as error:
        if is_full_disk(error):
            step = "make room, or write to another disk, and run the same again; what was there before is untouched"
            raise InputError(f"room on the disk for {path}", error.strerror or str(error), step) from error
        step = "check that the folder exists and that you may write there, or choose another place"
        raise InputError(f"a place where {path} can be written", error.strerror or str(error), step) from error
