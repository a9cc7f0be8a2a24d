"""One writer at a time for a run folder or an output file.

The lock is the operating system's own (flock, on Windows a locked byte): it ends with the process that holds it,
however that dies, so that no lock is ever stale. Leaves out: readers, who need none, since files are written whole.
"""

import contextlib
import errno
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import LOCK

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_logger = logging.getLogger(__name__)
_held: dict[Path, tuple[int, int]] = {}  # lock file -> its descriptor and the thread that holds it


def writing_run(folder: Path) -> AbstractContextManager[None]:
    """Refuses every other process and thread that would train in `folder`, which is made, until the block ends.

    Nested calls of one thread are one lock. A file system without locks gets a warning.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _only_writer(folder.resolve() / LOCK, folder, "output_dir")


def writing_file(path: Path) -> AbstractContextManager[None]:
    """Likewise for a file that grows over the life of a process."""
    return _only_writer(path.resolve().with_name(f".{path.resolve().name}{LOCK}"), path, "--output")


@contextlib.contextmanager
def _only_writer(lock: Path, place: Path, other_place: str) -> Iterator[None]:
    if _held.get(lock, (0, 0))[1] == threading.get_ident():
        yield
        return
    _held[lock] = _acquire(lock, place, other_place), threading.get_ident()
    try:
        yield
    finally:
        if lock in _held:  # not in a forked child
            descriptor, _ = _held.pop(lock)
            with contextlib.suppress(OSError):  # while it is held, so that nobody else's is removed
                lock.unlink()
            os.close(descriptor)


def _acquire(lock: Path, place: Path, other_place: str) -> int:
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            step = f"check that you may write there, or choose another {other_place}"
            raise InputError(f"a place to write to: {place}", error.strerror or str(error), step) from error
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                _logger.warning("the file system of %s has no locks: a second writer would go unnoticed", place)
                return descriptor
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") if hasattr(os, "pread") else ""
            os.close(descriptor)
            if error.errno not in _BUSY:
                raise
            process, _, host = holder.partition(" ")
            where = "" if host in ("", socket.gethostname()) else f" on {host}"
            found = f"{f'process {process}{where}' if process else 'another process'}, which is writing there"
            step = f"wait until it has ended, stop it, or choose another {other_place}"
            raise InputError(f"no other process that writes to {place}", found, step) from None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {socket.gethostname()}".encode())
                return descriptor
        os.close(descriptor)  # its last holder has just removed it


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far behind the text, which stays readable
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _let_go_in_child() -> None:
        # A forked worker shares the lock, and would keep it after the death of its parent.
        for descriptor, _ in _held.values():
            os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=_let_go_in_child)
