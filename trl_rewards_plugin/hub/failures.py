"""Failures of the Hub and the network as errors that say what to do next. Leaves out: retries (`upload.py`)."""

import re
import traceback
from typing import Any

from trl_rewards_plugin.errors import InputError, causes, kinds_of

_RETRY = "run the same again: what has arrived is not sent twice"


class UploadError(RuntimeError):
    """An upload that failed at the Hub or on the network. The repository is unchanged; retrying is safe."""

    def __init__(self, found: str, next_step: str):
        super().__init__(found, next_step)  # its `args`, by which it crosses a process border
        self.found, self.next_step = found, next_step

    def __str__(self) -> str:
        return f"\nFound:    {self.found}\nNext:     {self.next_step}"


def _responses(error: BaseException) -> list[Any]:
    found = (getattr(cause, "response", None) for cause in causes(error))
    return [response for response in found if response is not None]


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the Hub's response, if there was one."""
    return next((int(response.status_code) for response in _responses(error)), None)


def is_dropped(error: BaseException) -> bool:
    """Whether the connection failed or the response was cut; by name, since the client's HTTP library varies."""
    return bool(kinds_of(error) & {"TransportError", "ConnectionError", "TimeoutError", "JSONDecodeError"})


def is_offline(error: BaseException) -> bool:
    """Whether the client is in offline mode."""
    return "OfflineModeIsEnabled" in kinds_of(error)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    status = status_of(error)
    failed = is_dropped(error) if status is None else status in (408, 425, 429) or status >= 500
    return failed and not is_offline(error)


def not_logged_in(found: str) -> InputError:
    """How to log in."""
    step = "run `hf auth login`, or notebook_login() of huggingface_hub in a notebook; HF_TOKEN takes precedence"
    return InputError("a login at the Hub with write permission", found, step)


def not_allowed(repo_id: str, found: str) -> InputError:
    """How to upload in spite of missing permission."""
    step = "use a repository of yours, a token with write permission there, or --create-pr to propose the files"
    return InputError(f"permission to write to {repo_id}", found, step)


def not_reached() -> UploadError:
    """A connection failed."""
    return UploadError("the Hub cannot be reached, or the connection was lost", _RETRY)


def too_many_requests(seconds: float) -> UploadError:
    """The Hub asks to wait `seconds`; 0 where it does not say how long."""
    wait = f"{seconds:,.0f} seconds" if seconds else "a few minutes"
    return UploadError("too many requests to the Hub (429)", f"wait {wait} and {_RETRY}")


def wait_of(response: Any) -> float:
    """Seconds that a response asks to wait in `Retry-After` or `RateLimit`; 0 where it does not say."""
    asked = str(response.headers.get("retry-after", ""))
    window = re.search(r"\bt\s*=\s*(\d+)", str(response.headers.get("ratelimit", "")))
    return float(asked) if asked.isdecimal() else float(window[1]) if window else 0.0


def wait_after(error: BaseException) -> float:
    """As `wait_of`, of the response that `error` came with."""
    return max(map(wait_of, _responses(error)), default=0.0)


def explain(error: Exception, repo_id: str) -> Exception:
    """`error` with a message of ours; an error of ours, or one that is not the network's, unchanged."""
    own = next((cause for cause in causes(error) if isinstance(cause, InputError | UploadError)), None)
    if own is not None:  # the client wraps what its threads raise
        return own
    if is_offline(error):
        return InputError("a connection to the Hub", "HF_HUB_OFFLINE is set", "unset it, or push later")
    status = status_of(error)
    if status is not None:
        return _explain_status(status, error, repo_id)
    if type(error).__name__ == "LocalTokenNotFoundError":
        return not_logged_in("no token")
    if is_dropped(error):
        return not_reached()
    modules = {frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)}
    reads_answers = any(name.startswith(("huggingface_hub.", "trl_rewards_plugin.hub.remote")) for name in modules)
    if reads_answers and isinstance(error, ValueError | TypeError | LookupError | AttributeError | OSError):
        reason = " ".join(str(error).split())[:200]
        step = "check HF_ENDPOINT, and whether a proxy stands in between, then run the same again"
        return UploadError(f"an answer that no Hub gives ({type(error).__name__}: {reason})", step)
    return error


def _explain_status(status: int, error: Exception, repo_id: str) -> Exception:
    if status == 400 and "README.md" in str(error):
        step = "fix the lines between the two --- of README.md"
        return InputError("a card whose metadata the Hub accepts", " ".join(str(error).split()), step)
    if status == 401:
        return not_logged_in("a token that the Hub does not accept")
    if status == 403:
        return not_allowed(repo_id, "the Hub refuses it (403)")
    if status == 404:
        expected = f"a repository {repo_id} that this login can see"
        return InputError(expected, "not found (404)", "check owner, name and revision")
    if status in (409, 412):
        found = f"{repo_id} was changed by someone else meanwhile ({status}); nothing was overwritten"
        return UploadError(found, _RETRY)
    if status == 429:
        return too_many_requests(0.0)
    if status >= 500:
        return UploadError(f"an internal error of the Hub ({status})", _RETRY)
    reasons = (getattr(cause, "server_message", None) for cause in causes(error))
    reason = next((" ".join(str(text).split()) for text in reasons if text), "no reason given")
    return UploadError(f"the Hub refuses the request ({status}): {reason}", "fix what it names, and push again")
