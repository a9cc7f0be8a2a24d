"""What goes wrong between here and the Hub, in words that say what to do next.

Leaves out: trying again (`upload.py`).
"""

from __future__ import annotations

import json

from trl_rewards_plugin.errors import InputError, causes

_SAFE = "run the same again: what has arrived is not sent twice"


class UploadError(RuntimeError):
    """An upload that the Hub or the network stopped. The repository is as it was; trying again is safe.

    Args:
        found: What happened.
        next_step: What the reader should do now.
    """

    def __init__(self, found: str, next_step: str):
        super().__init__(f"\nFound:    {found}\nNext:     {next_step}")
        self.found = found
        self.next_step = next_step

    def __reduce__(self) -> tuple[type[UploadError], tuple[str, str]]:
        # The default would call UploadError(message) with one argument when it crosses a process border.
        return type(self), (self.found, self.next_step)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the Hub answered with, if it answered."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if response is not None:
            return int(response.status_code)
    return None


def is_dropped(error: BaseException) -> bool:
    """Whether the connection failed, or the answer was cut short; by name, since the client's HTTP library varies."""
    names = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "TimeoutError"}) or any(
        isinstance(cause, json.JSONDecodeError) for cause in causes(error)
    )


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    if is_offline(error):
        return False
    status = status_of(error)
    return is_dropped(error) if status is None else status in (408, 425, 429) or status >= 500


def is_offline(error: BaseException) -> bool:
    """Whether the client was told not to use the network."""
    return any(type(cause).__name__ == "OfflineModeIsEnabled" for cause in causes(error))


def not_logged_in(found: str) -> InputError:
    """How to log in."""
    step = "run `hf auth login`, or notebook_login() of huggingface_hub in a notebook; a variable HF_TOKEN goes first"
    return InputError("a login at the Hub with a token that may write", found, step)


def not_allowed(repo_id: str, found: str) -> InputError:
    """Where one may write."""
    step = "use a repository of yours, a token that may write there, or --create-pr to propose the files"
    return InputError(f"permission to write to {repo_id}", found, step)


def explain(error: Exception, repo_id: str) -> Exception:
    """`error` in our words; an error of ours, or one that the network has no part in, as it is."""
    if isinstance(error, InputError | UploadError):
        return error
    if is_offline(error):
        return InputError("a way to the Hub", "HF_HUB_OFFLINE is set", "unset it, or push later")
    status = status_of(error)
    if status is None and type(error).__name__ == "LocalTokenNotFoundError":
        return not_logged_in("no token")
    if status is None:
        return UploadError("the Hub cannot be reached, or broke off", _SAFE) if is_dropped(error) else error
    if status == 400 and "README.md" in str(error):
        told = " ".join(str(error).split())
        return InputError(
            "a card whose metadata the Hub accepts", told, "mend the lines between the two --- of README.md"
        )
    if status == 401:
        return not_logged_in("a token that the Hub does not accept")
    if status == 403:
        return not_allowed(repo_id, "the Hub refuses it (403)")
    if status == 404:
        return InputError(
            f"a repository {repo_id} that this login can see", "none (404)", "check owner, name and revision"
        )
    if status in (409, 412):
        return UploadError(
            f"{repo_id} was changed by someone else meanwhile ({status}); nothing was overwritten", _SAFE
        )
    if status == 429:
        return UploadError("the Hub has had too many requests (429)", f"wait a few minutes and {_SAFE}")
    if status >= 500:
        return UploadError(f"the Hub has a problem of its own ({status})", _SAFE)
    return UploadError(f"the Hub refuses the request ({status}): {_told(error)}", "mend what it names, and push again")


def _told(error: BaseException) -> str:
    """The server's own words, on one line."""
    for cause in causes(error):
        message = getattr(cause, "server_message", None)
        if message:
            return " ".join(str(message).split())
    return "no reason given"
