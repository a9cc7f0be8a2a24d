"""RemoteReward: a reward that another process or machine computes, the client of `trl-rewards serve`.

```python
MultiClassifierReward([RemoteReward("http://10.0.0.5:8000"), LengthReward(max_length=40)])
```

Retries, backoff with jitter and the pool of connections are urllib3's. Leaves out: the server (serving/).
"""

import json
import os
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import urllib3

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.base import Reward, check_attempts, checked_scores, no_scores
from trl_rewards_plugin.rewards.event_loop import FIRST_WAIT, LONGEST_WAIT
from trl_rewards_plugin.rewards.texts import as_texts, paired_texts

if TYPE_CHECKING:
    from torch import Tensor

TOKEN_VARIABLE = "TRL_REWARDS_TOKEN"
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class RemoteReward(Reward):
    """Scores texts at `POST <url>/score`; the totals are those of a local call, to float32 rounding.

    The server gets texts, prompts, and the columns of the data set that are named here. A request that fails on the
    way, or is answered by 408, 425, 429 or 5xx, is repeated after 0.5, 1, 2 ... seconds plus up to a half at random,
    30 at most. Thread-safe; pickled without its connections.

    Args:
        url: Of the server, for example "http://127.0.0.1:8000".
        name: Name of the component.
        columns: Columns of the data set that the server's reward reads.
        timeout: Seconds to wait for a connection, and for an answer.
        retries: How often a request is repeated.
        batch_size: Texts in one request.
        on_failure: What happens when all attempts failed: "stop" raises, "none" gives no score (None) to the texts
            of that request and logs a warning.

    The bearer token, where the server wants one, is read from the environment: TRL_REWARDS_TOKEN.

    Raises:
        InputError: a setting that does not fit; when called: a request that the server refuses, or a wrong answer.
        RuntimeError: when called: no attempt succeeded, and `on_failure` is "stop".
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
            raise InputError("batch_size of at least 1, columns as a list of names", found, "leave them out")
        super().__init__(name)
        self.url, self.columns = url.rstrip("/"), tuple(columns)
        self.timeout, self.retries, self.batch_size, self.on_failure = timeout, retries, batch_size, on_failure
        self._connections: tuple[int, urllib3.PoolManager] | None = None

    def entry(self) -> dict[str, Any]:
        return {**super().entry(), "function": "remote", **self._changed(RemoteReward)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connections": None}

    def _own_scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> "Tensor":
        import torch

        texts = as_texts(completions)
        plain_prompts = paired_texts(prompts, texts)
        for column in self.columns:
            if column not in columns:
                step = "add it to the data set, or leave it out of columns="
                raise InputError(f"the column {column!r}, which reward {self.name!r} sends", ", ".join(columns), step)
        scores = []
        for start in range(0, len(texts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            request: dict[str, Any] = {"texts": texts[rows]}
            if plain_prompts is not None:
                request["prompts"] = plain_prompts[rows]
            if self.columns:
                request["columns"] = {column: list(columns[column][rows]) for column in self.columns}
            scores.append(self._request(request))
        return torch.cat(scores) if scores else torch.empty(0)

    def _request(self, request: dict[str, Any]) -> "Tensor":
        """Scores (N,) of the N texts of one request."""
        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        body = json.dumps(request, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")
        try:
            answer = self._pool().request("POST", f"{self.url}/score", body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            return self._failed(len(request["texts"]), f"{type(error).__name__}: {error}", error)
        found = f"status {answer.status}: {answer.data[:500].decode('utf-8', 'replace')}"
        if answer.status in _TRY_AGAIN:
            return self._failed(len(request["texts"]), found, None)
        if answer.status != 200:
            step = f"set {TOKEN_VARIABLE} to the server's token" if answer.status == 401 else "see what it says"
            raise InputError(f"scores from {self.url}", found, step)
        try:
            total = json.loads(answer.data)["total"]
        except (ValueError, KeyError, TypeError) as error:
            found = repr(answer.data[:200].decode("utf-8", "replace"))
            step = "check that the address is that of `trl-rewards serve`"
            raise InputError(f'JSON with "total" from {self.url}', found, step) from error
        return checked_scores(self.name, total, request["texts"])

    def _failed(self, count: int, found: str, cause: Exception | None) -> "Tensor":
        message = f"reward {self.name!r}: no scores from {self.url} after {self.retries + 1} attempts ({found})"
        if self.on_failure == "none":
            return no_scores(count, message)
        raise RuntimeError(f'{message}; start the server, or pass on_failure="none"') from cause

    def _pool(self) -> urllib3.PoolManager:
        """This process's own connections: a forked child must not write into its parent's."""
        connections = self._connections
        if connections is None or connections[0] != os.getpid():
            retry = urllib3.Retry(
                total=self.retries,
                allowed_methods=None,  # a POST here computes, and changes nothing
                status_forcelist=_TRY_AGAIN,
                backoff_factor=FIRST_WAIT,
                backoff_jitter=FIRST_WAIT,
                backoff_max=LONGEST_WAIT,
                retry_after_max=LONGEST_WAIT,
                raise_on_status=False,
            )
            pool = urllib3.PoolManager(retries=retry, timeout=self.timeout, maxsize=8, block=False)
            self._connections = connections = os.getpid(), pool
        return connections[1]


def _plain(value: Any) -> Any:
    """What JSON does not know, tensors and numbers of NumPy, as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise InputError("columns of plain values for a remote reward", type(value).__name__, "convert them first")
