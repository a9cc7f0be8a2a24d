"""RemoteReward: a reward that another process or machine computes, the client of `trl-rewards serve`."""

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import urllib3

from trl_rewards_plugin.errors import InputError, NoAnswerError
from trl_rewards_plugin.rewards.base import (
    Reward,
    RewardScores,
    check_attempts,
    checked_scores,
    no_scores,
    without_quotes,
)
from trl_rewards_plugin.rewards.event_loop import LONGEST_WAIT, wait_after
from trl_rewards_plugin.rewards.texts import as_texts, paired_texts

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "TRL_REWARDS_TOKEN"
_FIRST_ANSWER = 5.0  # seconds that a server is given to say whether it is there
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_UNREACHED = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


class RemoteReward(Reward):
    """Scores texts at `POST <url>/score`; the totals are those of a local call, to float32 rounding.

    The server's components are logged as `<name>/<component>`. A request that fails on the way, or is answered by 408,
    425, 429 or 5xx, is repeated after 0.5, 1, 2 ... seconds plus up to a half at random, 30 at most, with one warning.
    But one that reaches no server is not if none ever answered, and none is after one that failed, until the server
    answers again. The bearer token, where it wants one, is read from the environment: TRL_REWARDS_TOKEN. Thread-safe;
    pickled without its connections.

    Args:
        url: Of the server, for example "http://127.0.0.1:8000".
        name: Name of the component.
        columns: Columns of the data set that the server's reward reads beside texts and prompts.
        timeout: Seconds to wait for a connection, and for an answer.
        retries: How often a request is repeated.
        batch_size: Texts in one request.
        on_failure: What happens when all attempts failed: "stop" raises, "none" gives no score (None) to the texts
            of that request and logs a warning; combine it by `aggregation="weighted_mean"`.

    Raises:
        InputError: a setting that does not fit; when called: a request that the server refuses, or a wrong answer.
        NoAnswerError: a RuntimeError; when called: no attempt succeeded, and `on_failure` is "stop".
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "remote",
        columns: Sequence[str] = (),
        timeout: float = 60.0,
        retries: int = 6,
        batch_size: int = 256,
        on_failure: str = "stop",
    ):
        unreadable = InputError("the URL of a reward server", repr(url), 'for example "http://127.0.0.1:8000"')
        if not isinstance(url, str) or not url.startswith(("http://", "https://")) or url.split() != [url]:
            raise unreadable
        try:
            login = urllib3.util.parse_url(url).auth
        except urllib3.exceptions.LocationParseError as error:
            raise unreadable from error
        if login:
            step = f"leave the login out; the server's token is read from {TOKEN_VARIABLE}"
            raise InputError("a URL without a login", "one with a login", step)
        check_attempts(timeout, retries, on_failure)
        names = isinstance(columns, Sequence) and all(isinstance(column, str) for column in columns)
        whole = isinstance(batch_size, Integral) and not isinstance(batch_size, bool) and batch_size >= 1
        if not whole or not names or isinstance(columns, str):
            found = f"batch_size={batch_size!r}, columns={columns!r}"
            step = f"{without_quotes(batch_size)}leave them out"
            raise InputError("batch_size of at least 1, columns as a list of names", found, step)
        super().__init__(name)
        self.url, self.columns = url.rstrip("/"), tuple(columns)
        self.timeout, self.retries, self.batch_size, self.on_failure = timeout, retries, batch_size, on_failure
        self._connections: tuple[int, urllib3.PoolManager] | None = None
        self._answers: bool | None = None  # whether it did when last asked; None before its first answer
        self._ever_answered = False
        self._served: dict[str, None] = {}  # the names of its components, as far as they are known

    def __call__(self, /, completions: Any, prompts: Any = None, **kwargs: Any) -> list[float]:
        found = self.served_scores(completions, prompts, kwargs)
        found.log(kwargs, f"{self.name}/")
        return found.total.tolist()

    def entry(self) -> dict[str, Any]:
        return {**super().entry(), "function": "remote", **self._changed(RemoteReward)}

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in self._changed(RemoteReward).items() if key != "url")
        return f"RemoteReward({self.url!r}{given})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connections": None}

    def _own_scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> "Tensor":
        return self.served_scores(completions, prompts, columns).total

    def served_scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> RewardScores:
        """Total (N,) and the server's own components, each (N,) and NaN where a request failed."""
        import torch

        texts = as_texts(completions)
        plain_prompts = paired_texts(prompts, texts)
        for column in self.columns:
            if column not in columns:
                step = "add it to the data set, or leave it out of columns="
                raise InputError(f"the column {column!r}, which reward {self.name!r} sends", ", ".join(columns), step)
        scores = [] if texts else [RewardScores(torch.empty(0), {})]
        for start in range(0, len(texts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            request: dict[str, Any] = {"texts": texts[rows]}
            if plain_prompts is not None:
                request["prompts"] = plain_prompts[rows]
            if self.columns:
                request["columns"] = {column: list(columns[column][rows]) for column in self.columns}
            scores.append(self._request(request))
        served = self._served = self._served | dict.fromkeys(name for one in scores for name in one.components)
        # Those of requests without scores as well, so that every logged column keeps one value per text.
        parts = {name: [one.components.get(name, one.total * math.nan) for one in scores] for name in served}
        total = torch.cat([one.total for one in scores])
        return RewardScores(total, {name: torch.cat(values) for name, values in parts.items()})

    def _request(self, request: dict[str, Any]) -> RewardScores:
        """Total (N,) and components of the N texts of one request."""
        body = json.dumps(request, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")
        waits = [] if self._answers is False else [wait_after(attempt) for attempt in range(self.retries)]
        for attempt in range(len(waits) + 1):
            asked, slow = 0.0, 0.0  # seconds that the server asks to wait; that an attempt may take
            try:
                answer = self._post(body)
                self._answers = self._ever_answered = True
                found = f"status {answer.status}: {_said(answer)['found']}"
                if answer.status not in _TRY_AGAIN:
                    return self._scores_in(answer, found, request["texts"])
                asked = urllib3.Retry(retry_after_max=LONGEST_WAIT).get_retry_after(answer) or 0.0
            except urllib3.exceptions.HTTPError as error:
                found = _reason(error)
                slow = (self.timeout or 0.0) if isinstance(error.__cause__, TimeoutError) else 0.0
                # One that took the connection may still be loading its models.
                if self._answers is None and isinstance(error, _UNREACHED):
                    break
            if attempt < len(waits):
                if attempt == 0:
                    seconds = math.ceil(sum(slow + max(wait, asked) for wait in waits))
                    message = "reward %r: no scores from %s (%s); trying again for up to %d s"
                    logger.warning(message, self.name, self.url, found, seconds)
                time.sleep(max(waits[attempt], asked))
        found, self._answers = f"{found}; {attempt + 1} attempts" if attempt else found, False
        if self.on_failure == "none":
            why = f"reward {self.name!r}: no scores from {self.url} ({found})"
            return RewardScores(no_scores(len(request["texts"]), why), {})
        # Without urllib3's errors, whose chain of tracebacks would hide what they say, which is in `found`.
        raise self._no_answer(found)

    def _no_answer(self, found: str) -> NoAnswerError:
        step = "start the server or correct the url"
        if self._ever_answered:
            step = "start the server again and resume from the last checkpoint: "
            step += "trainer.train(resume_from_checkpoint=True)"
        step += '; on_failure="none" (in a file on_failure: none), together with aggregation="weighted_mean", goes on '
        step += "without it"
        return NoAnswerError(f"scores from {self.url} for reward {self.name!r}", found, step)

    def check_server(self) -> None:
        """Refuses what a call would end with: no server there, another token, a path too many. Sends no text.

        One that takes the connection and does not answer may be loading its models; a call waits for it.
        """
        if self.on_failure == "none":
            return
        try:
            wait = min(self.timeout or _FIRST_ANSWER, _FIRST_ANSWER)
            answer = self._post(b"{}", timeout=wait)  # /health asks for no token
        except _UNREACHED as error:
            raise self._no_answer(_reason(error)) from None
        except urllib3.exceptions.HTTPError:
            return
        if answer.status in (401, 404):
            self._scores_in(answer, f"status {answer.status}: {_said(answer)['found']}", [])

    def _post(self, body: bytes, timeout: float | None = None) -> urllib3.BaseHTTPResponse:
        # Over this process's own connections: a forked child must not write into its parent's.
        if self._connections is None or self._connections[0] != os.getpid():
            self._connections = os.getpid(), urllib3.PoolManager(retries=False, maxsize=8)
        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        url = f"{self.url}/score"
        wait = self.timeout if timeout is None else timeout
        return self._connections[1].request("POST", url, body=body, headers=headers, redirect=False, timeout=wait)

    def _scores_in(self, answer: urllib3.BaseHTTPResponse, found: str, texts: Sequence[str]) -> RewardScores:
        step, route = "check that the url is that of `trl-rewards serve`", self.url.rpartition("/")[2]
        if answer.status != 200:
            step = f"leave /{route} out of the url" if route in ("score", "get_reward") else step
            steps = {401: f"set {TOKEN_VARIABLE} to the server's token", 404: step}
            said = _said(answer)
            expected = f"scores from {self.url}" + (f" ({said['expected']})" if "expected" in said else "")
            raise InputError(expected, found, steps.get(answer.status, said.get("next_step", "see what it says")))
        try:
            content = json.loads(answer.data)
            total, components = content["total"], dict(content.get("components") or {})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'JSON with "total" from {self.url}', found, step) from error
        parts = {name: checked_scores(f"{self.name}/{name}", values, texts) for name, values in components.items()}
        return RewardScores(checked_scores(self.name, total, texts), parts)


def _said(answer: urllib3.BaseHTTPResponse) -> dict[str, str]:
    """The three parts of an error of our own server's; of any other answer the beginning, as what was found."""
    beginning = {"found": " ".join(answer.data[:500].decode("utf-8", "replace").split())}
    if answer.status == 200:  # scores, which may be many: they are read once
        return beginning
    try:
        error = json.loads(answer.data)["error"]
        return {key: " ".join(error[key].split()) for key in ("expected", "found", "next_step")}
    except (ValueError, KeyError, TypeError, AttributeError):  # another server's, of any shape
        return beginning


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Why a request was not answered, in the system's words, which urllib3's own texts only repeat."""
    within = error.__cause__ or error.args[-1]
    reason = getattr(within, "strerror", None)
    return str(reason).lower() if reason else str(within)


def _plain(value: Any) -> Any:
    """What JSON does not know, tensors and numbers of NumPy, as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise InputError("columns of plain values for a remote reward", type(value).__name__, "convert them first")
