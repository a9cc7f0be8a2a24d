"""What to do where a model or data set could not be had: by the cause that a library's error hides.

Leaves out: uploads (`hub/failures.py`).
"""

from __future__ import annotations

import errno
from pathlib import Path

from trl_rewards_plugin.hub.failures import causes
from trl_rewards_plugin.nearest import nearest

_UNREACHED = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "TransportError", "TimeoutError"}


def what_to_do(error: BaseException, otherwise: str, name: str | None = None) -> str:
    """The next step for a reader.

    Args:
        error: What the library raised.
        otherwise: The step where the cause is no other than a wrong name.
        name: What was asked for, where it may have been meant as a folder.
    """
    mistyped = None if name is None else _mistyped_folder(name)
    if mistyped is not None:
        return mistyped
    # By name, since the libraries' HTTP clients vary and are not loaded for this.
    kinds = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
    if "GatedRepoError" in kinds or "gated" in str(error):
        return "ask for access on its page on the Hub, then log in: hf auth login"
    if any(getattr(cause, "errno", None) == errno.ENOSPC for cause in causes(error)):
        return "make room on the disk, or point HF_HOME to another one"
    if "RepositoryNotFoundError" in kinds:
        return f"{otherwise}; if it is private, log in: hf auth login"
    if kinds & _UNREACHED:
        return "check the network; without one, download it where there is one (hf download ID) and pass the folder"
    return otherwise


def _mistyped_folder(name: str) -> str | None:
    """The next step where `name` is no folder, but would lie in one that is here: "runs/tiny-seed1"."""
    path = Path(name).expanduser()
    if path.exists() or path.parent == Path() or not path.parent.is_dir():
        return None
    there = sorted(folder.name for folder in path.parent.iterdir() if folder.is_dir())
    near = nearest(path.name, there)
    if near is not None:
        return f"{path.parent} is a folder here without {path.name!r}: did you mean {path.parent / near}?"
    shown = ", ".join(there[:5]) + (" ..." if there[5:] else "")
    return f"{path.parent} is a folder here without {path.name!r}; in it: {shown or 'no folder'}"
