"""The bundled tiny models and prompts: where they lie, and that they are what was measured.

Every asset is a folder beside this file with a `SHA256SUMS` that is verified each time the asset is opened.
For demonstration and tests only. Leaves out: loading a model, which is the caller's.
"""

import hashlib
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError, check_choice

ROOT = Path(__file__).parent
BUNDLED = "bundled:"  # what a bundled asset's name begins with wherever a model, a file of prompts or a judge is named
ASSETS = ("acceptability-judge", "sentiment-judge", "tiny-t5", "prompts")


def asset_path(name: str) -> Path:
    """Folder of the bundled asset `name`; InputError for no such asset, or a file of it that is missing or altered."""
    check_choice("bundled asset", name, ASSETS)
    folder = ROOT / name
    verify_checksums(folder)
    return folder


def is_bundled(name: Any) -> bool:
    """Whether `name` reads "bundled:ASSET" or "bundled:ASSET/FILE"."""
    return isinstance(name, str) and name.startswith(BUNDLED)


def bundled_path(name: str) -> Path:
    """Where "bundled:ASSET/FILE" lies; the asset's checksums are verified."""
    asset, _, inside = name.removeprefix(BUNDLED).partition("/")
    return asset_path(asset) / inside if inside else asset_path(asset)


def resolve(name: Any) -> Any:
    """A bundled name as its folder; anything else as it is."""
    return str(bundled_path(name)) if is_bundled(name) else name


def verify_checksums(folder: Path) -> None:
    """Refuses a folder without SHA256SUMS, or with a file of that list that is missing or has another digest."""
    listing = folder / "SHA256SUMS"
    reinstall = "reinstall trl_rewards_plugin; to use files of your own, pass their folder as a path instead"
    if not listing.is_file():
        raise InputError(f"the checksum list {listing.name} in the asset folder", f"none in {folder}", reinstall)
    rows = [line.split(maxsplit=1) for line in listing.read_text(encoding="utf-8", errors="replace").splitlines()]
    if not rows or any(len(row) != 2 for row in rows):
        raise InputError(f"digests and names of files in {listing.name} of {folder.name}", "none", reinstall)
    for digest, name in rows:
        path = folder / name
        if not path.is_file():
            raise InputError(f"the file {name} of the asset {folder.name}", "no such file", reinstall)
        found = _sha256(path)
        if found != digest:
            raise InputError(f"{folder.name}/{name} with SHA-256 {digest}", found, reinstall)


def write_checksums(folder: Path) -> None:
    """Writes `folder/SHA256SUMS` over all its files (not subfolders), in the format of sha256sum."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{_sha256(path)}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
