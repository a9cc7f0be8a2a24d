"""One file on its way to the Hub: read once, so that the bytes that were checked are the bytes that are sent.

Weights, which may not fit in memory, stay on the disk: a change of them between check and upload is refused, and the
Hub compares what arrives with the digest that was announced.
"""

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils.sha import git_hash

from trl_rewards_plugin.errors import InputError

LARGEST = 200_000_000  # bytes of a file that is read and searched for secrets; weights may have more


@dataclass(frozen=True)
class UploadFile:
    """A file of the repository: its bytes, or the path of weights with what identifies them as they were checked."""

    name: str
    content: bytes | Path
    version: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def text(self) -> str:
        """Of a file in UTF-8, which is refused otherwise; without a byte order mark, its lines ending in LF."""
        assert isinstance(self.content, bytes)
        try:
            return self.content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise InputError(f"UTF-8 text in {self.name}", str(error), "save the file as UTF-8") from error

    @cached_property
    def operation(self) -> CommitOperationAdd:
        """The file as the Hub client uploads it; hashed once."""
        self.check_unchanged()
        operation = CommitOperationAdd(self.name, self.content)
        _ = operation.upload_info.sha256  # else computed when it is sent, from whatever lies there then
        self.check_unchanged()
        return operation

    def check_unchanged(self) -> None:
        """Refuses weights that were written since the plan was made."""
        if not isinstance(self.content, Path) or not self.version:
            return
        if not self.content.is_file() or _version(self.content) != self.version:
            step = "wait until nothing is writing there, then push again"
            raise InputError(f"{self.name} as it was checked", "a file that was changed meanwhile", step)

    def has_digest(self, digest: str) -> bool:
        """Whether `digest` is the file's: SHA-256 where the Hub stores it with LFS, else git's blob id."""
        if len(digest) == 64:
            return self.operation.upload_info.sha256.hex() == digest
        return git_hash(self.content if isinstance(self.content, bytes) else self.content.read_bytes()) == digest


def read_file(folder: Path, name: str) -> UploadFile:
    """The file `name` of `folder`, read once unless it holds weights; refused if it is no regular file.

    A link is followed inside of the folder, and from a snapshot in the Hub's cache to the cache's own blobs.
    """
    path = folder / name
    step = "remove it, or put the file itself there"
    try:
        place = path.resolve(strict=True)
        # Not blocked by a pipe without a writer; and what was resolved is opened, should the link change now.
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, in Python 3.11 and 3.12
        reason = "a link to nothing" if path.is_symlink() else str(getattr(error, "strerror", error))
        raise InputError(f"a readable file {name} in {folder}", reason, step) from error
    try:
        status = os.fstat(descriptor)
        if not any(place.is_relative_to(home) for home in _homes(folder)):
            raise InputError(f"files of {folder} only", f"{name}, a link to {place}", step)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("files of a model", f"{name}, which is not a regular file", step)
        if path.suffix == ".safetensors":
            return UploadFile(name, place, _version(place))
        if status.st_size > LARGEST:
            found = f"{status.st_size:,} bytes"
            raise InputError(f"at most {LARGEST:,} bytes in {name}", found, "remove it, or shorten it")
        with open(descriptor, "rb", closefd=False) as stream:
            return UploadFile(name, stream.read())
    finally:
        os.close(descriptor)


def _homes(folder: Path) -> list[Path]:
    """Where files of `folder` may lie: in it, and, of a snapshot in the Hub's cache, among the cache's blobs."""
    place = folder.resolve()
    snapshot = next((one for one in (place, *place.parents) if one.parent.name == "snapshots"), None)
    if snapshot is None or not snapshot.parent.parent.name.startswith("models--"):
        return [place]
    return [place, snapshot.parent.parent / "blobs"]


def _version(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
