"""What to do where a model or data set could not be had: by the cause that a library's error hides.

Leaves out: uploads (`hub/failures.py`).
"""

from __future__ import annotations

import errno

from trl_rewards_plugin.hub.failures import causes

_UNREACHED = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "TransportError", "TimeoutError"}


def what_to_do(error: BaseException, otherwise: str) -> str:
    """The next step for a reader.

    Args:
        error: What the library raised.
        otherwise: The step where the cause is no other than a wrong name.
    """
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
