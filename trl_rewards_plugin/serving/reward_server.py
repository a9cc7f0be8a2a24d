"""A reward as an ASGI application (Starlette), with Prometheus metrics.

    POST /score       {"texts": [...], "prompts": [...], "columns": {name: [...]}}, the last two where the reward reads
                      them -> {"name": ..., "total": [...], "components": {name: [...]}}, null where there is no score
    POST /get_reward  OpenRLHF's `--remote_rm_url`: {"query": [prompt + response, ...], "prompts": [...], ...}
                      -> {"rewards": [...], "scores": [...], "extra_logs": {component: [...]}}
    GET  /health      {"status": "ok", "reward": name, "components": [...]}
    GET  /metrics     Prometheus

Bad requests are answered by {"error": {"expected", "found", "next_step"}}: 400 (no JSON), 401 (token), 413 (too
large), 422 (refused by the reward); 500 where the reward failed, 503 with Retry-After where too many texts wait.
Leaves out: the process around it (`cli/measure.py`).
"""

import asyncio
import contextlib
import hmac
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import RewardScores
from trl_rewards_plugin.rewards.texts import PROTOCOL
from trl_rewards_plugin.serving.merged_scoring import MergedScoring, QueueFullError, Texts

logger = logging.getLogger(__name__)

_RESERVED = {*PROTOCOL, "self", "trainer_state", "log_metric", "log_extra", "completion_ids"}
_EXAMPLE = '{"texts": ["The cat sleeps."]}'


def reward_server(
    reward: Any,
    *,
    token: str | None = None,
    max_body_bytes: int = 16 * 2**20,
    max_waiting_texts: int = 65_536,
    batch_texts: int = 1024,
) -> Starlette:
    """The application that serves `reward`, any of this package.

    Every request but /health must carry the bearer `token`, of ASCII, which headers carry; None asks for none. Where
    `max_waiting_texts` wait, further requests are sent away with 503; `batch_texts` are scored in one call.
    """
    if token is not None and not token.isascii():
        raise InputError("a token of ASCII characters", "others in it", "choose another token")
    return _Server(reward, token, max_body_bytes, MergedScoring(reward, batch_texts, max_waiting_texts)).application()


class _Refused(Exception):
    """A request that is answered by an error."""

    def __init__(self, status: int, expected: str, found: str, next_step: str):
        super().__init__(found)
        self.status, self.body = status, {"error": dict(expected=expected, found=found, next_step=next_step)}


class _Server:
    def __init__(self, reward: Any, token: str | None, max_body_bytes: int, scoring: MergedScoring):
        self.reward, self.token, self.max_body_bytes, self.scoring = reward, token, max_body_bytes, scoring
        self.registry = CollectorRegistry()
        self.requests = Counter("trl_rewards_requests", "Requests", ["path", "status"], registry=self.registry)
        self.texts = Counter("trl_rewards_texts", "Texts scored", registry=self.registry)
        self.seconds = Histogram("trl_rewards_request_seconds", "Time of a request", ["path"], registry=self.registry)
        waiting = Gauge("trl_rewards_waiting_texts", "Texts that wait or are being scored", registry=self.registry)
        waiting.set_function(lambda: self.scoring.waiting)

    def application(self) -> Starlette:
        routes = [
            Route("/score", self._answers(self._score), methods=["POST"]),
            Route("/get_reward", self._answers(self._get_reward), methods=["POST"]),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, application: Starlette) -> AsyncIterator[None]:
        self.task = asyncio.create_task(self.scoring.run())
        yield
        self.task.cancel()

    async def _health(self, request: Request) -> Response:
        state, code = ("stopped", 503) if self.task.done() else ("ok", 200)
        names = self.reward.component_names()
        return JSONResponse({"status": state, "reward": self.reward.name, "components": names}, code)

    async def _metrics(self, request: Request) -> Response:
        try:
            self._check_token(request)
        except _Refused as refused:
            return JSONResponse(refused.body, refused.status)
        return PlainTextResponse(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    def _answers(
        self, work: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """`work` on a request's JSON object, with token, limits, errors and metrics around it."""

        async def endpoint(request: Request) -> Response:
            began, path = time.perf_counter(), request.url.path
            headers = {}
            try:
                self._check_token(request)
                content = await self._read(request)
                status, body = 200, await _unless_gone(request, work(content))
            except _Refused as refused:
                status, body = refused.status, refused.body
                headers = {"Retry-After": "1"} if status == 503 else {}
            self.requests.labels(path, status).inc()
            self.seconds.labels(path).observe(time.perf_counter() - began)
            return JSONResponse(body, status, headers)

        return endpoint

    def _check_token(self, request: Request) -> None:
        if self.token is None:
            return
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode("ascii")):
            expected = "the header Authorization: Bearer <token>"
            raise _Refused(401, expected, "a missing or wrong token", "set the token")

    async def _read(self, request: Request) -> dict[str, Any]:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self.max_body_bytes:
                    limit = f"a request of at most {self.max_body_bytes:,} bytes"
                    raise _Refused(413, limit, "a larger one", "send fewer texts at a time")
        except ClientDisconnect as error:
            raise _Refused(400, "a complete request", "a connection that was lost", "send it again") from error
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Refused(400, "JSON", str(error), f"for example {_EXAMPLE}") from error
        if not isinstance(content, dict):
            raise _Refused(400, "a JSON object", type(content).__name__, f"for example {_EXAMPLE}")
        return content

    async def _score(self, content: dict[str, Any]) -> dict[str, Any]:
        unknown = content.keys() - {"texts", "prompts", "columns"}
        if unknown:
            raise _Refused(422, "texts, prompts, columns", ascii(sorted(unknown)), f"for example {_EXAMPLE}")
        columns = content.get("columns") or {}
        if not isinstance(columns, dict):
            raise _Refused(422, "columns as an object of lists", type(columns).__name__, "{name: [value, ...]}")
        reserved = columns.keys() & _RESERVED
        if reserved:
            raise _Refused(422, "columns of other names", ascii(sorted(reserved)), "rename the column")
        texts = _texts(content, "texts")
        scores = await self._scores(Texts(texts, _prompts(content), columns))
        components = {name: _plain(values) for name, values in scores.components.items()}
        return {"name": self.reward.name, "total": _plain(scores.total), "components": components}

    async def _get_reward(self, content: dict[str, Any]) -> dict[str, Any]:
        # OpenRLHF sends prompt and response as one text, and the prompt once more beside it.
        queries, prompts = _texts(content, "query"), _prompts(content)
        if prompts is not None and len(prompts) == len(queries):
            pairs = list(zip(queries, prompts, strict=True))
            other = next((query for query, prompt in pairs if not query.startswith(prompt)), None)
            if other is not None:
                raise _Refused(422, "queries that begin with their prompts", ascii(other[:80]), "send them as sampled")
            queries = [query.removeprefix(prompt) for query, prompt in pairs]
        scores = await self._scores(Texts(queries, prompts))
        total = _plain(scores.total)
        if None in total:
            raise _Refused(422, "texts that the reward scores", "one without a score", "use /score, which says null")
        logs = {name: _plain(values) for name, values in scores.components.items()}
        return {"rewards": total, "scores": total, "extra_logs": logs}

    async def _scores(self, texts: Texts) -> RewardScores:
        count = len(texts.texts)
        for name, values in {"prompts": texts.prompts, **texts.columns}.items():
            if values is not None and (not isinstance(values, list) or len(values) != count):
                found = f"{len(values)}" if isinstance(values, list) else type(values).__name__
                raise _Refused(422, f"{count} values in {name!r}, one for each text", found, "send one each")
        try:
            scores = await self.scoring.score(texts)
        except QueueFullError as error:
            raise _Refused(503, "room in the queue", str(error), "try again in a second") from error
        except InputError as error:
            raise _Refused(422, error.expected, error.found, error.next_step) from error
        except Exception as error:
            logger.exception("the reward failed")
            raise _Refused(500, "a reward that scores", f"{type(error).__name__}: {error}", "see its log") from error
        self.texts.inc(count)
        return scores


async def _unless_gone(request: Request, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives; cancelled where the client goes away, so that nobody's texts are scored for nobody."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not working.done():
        working.cancel()
        raise _Refused(499, "a client that waits for its scores", "one that went away", "send it again")
    return working.result()


def _texts(content: dict[str, Any], key: str) -> list[str]:
    texts = content.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _Refused(422, f"{key!r}, a list of texts", type(texts).__name__, f'{{"{key}": ["...", ...]}}')
    return texts


def _prompts(content: dict[str, Any]) -> list[str] | None:
    return None if content.get("prompts") is None else _texts(content, "prompts")


def _plain(scores: Any) -> list[float | None]:
    """JSON has no NaN: null where there is no score."""
    return [None if math.isnan(score) else score for score in scores.tolist()]
