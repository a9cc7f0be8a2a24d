"""Texts of many clients -> few calls of one reward: what waits while a call runs goes into the next one together.

Leaves out: HTTP (reward_server.py).
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from trl_rewards_plugin.rewards import RewardScores


class QueueFullError(RuntimeError):
    """More texts wait than the server may hold."""


@dataclass(frozen=True)
class Texts:
    """N completions of one request, with N prompts or none, and N values of each column."""

    texts: list[str]
    prompts: list[str] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def fits(self, other: "Texts") -> bool:
        """Whether both can be scored in one call."""
        return (self.prompts is None) == (other.prompts is None) and self.columns.keys() == other.columns.keys()


class MergedScoring:
    """Scores the requests of many clients, one `reward.score()` at a time, in a thread beside the event loop.

    One call has at most `batch` texts, unless one request alone has more; `capacity` texts may wait.
    """

    def __init__(self, reward: Any, batch: int, capacity: int):
        self.reward, self.batch, self.capacity = reward, batch, capacity
        self.waiting = 0
        self._requests: deque[tuple[Texts, asyncio.Future[RewardScores]]] = deque()
        self._arrived = asyncio.Event()

    async def score(self, texts: Texts) -> RewardScores:
        """Total (N,) and components of one request's N texts; QueueFullError, or what the reward raises on them."""
        size = max(1, len(texts.texts))
        if self.waiting and self.waiting + size > self.capacity:
            raise QueueFullError(f"{self.waiting} texts wait")
        future: asyncio.Future[RewardScores] = asyncio.get_running_loop().create_future()
        self._requests.append((texts, future))
        self.waiting += size
        self._arrived.set()
        try:
            return await future  # cancelled where the client goes away
        finally:
            self.waiting -= size

    async def run(self) -> None:
        """Serves until it is cancelled."""
        while True:
            await self._arrived.wait()
            requests = self._next_requests()
            if not requests:
                continue
            scores = await asyncio.to_thread(self._score, [texts for texts, _ in requests])
            for (_, future), found in zip(requests, scores, strict=True):
                if future.done():  # its client went away meanwhile
                    continue
                if isinstance(found, Exception):
                    future.set_exception(found)
                else:
                    future.set_result(found)

    def _next_requests(self) -> list[tuple[Texts, asyncio.Future[RewardScores]]]:
        """The oldest request, with those behind it that fit beside it into one call; none whose client went away."""
        taken: list[tuple[Texts, asyncio.Future[RewardScores]]] = []
        count = 0
        while self._requests:
            texts, future = self._requests[0]
            if not future.done():
                count += len(texts.texts)
                if taken and (count > self.batch or not taken[0][0].fits(texts)):
                    return taken
                taken.append((texts, future))
            self._requests.popleft()
        self._arrived.clear()
        return taken

    def _score(self, requests: list[Texts]) -> list[RewardScores | Exception]:
        """The scores of each request, or what it failed with."""
        try:
            return self._score_together(requests)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            # One client's input must not fail the others': each half once more.
            half = len(requests) // 2
            return [*self._score(requests[:half]), *self._score(requests[half:])]

    def _score_together(self, requests: list[Texts]) -> list[RewardScores | Exception]:
        first = requests[0]
        texts = [text for one in requests for text in one.texts]
        prompts = None if first.prompts is None else [prompt for one in requests for prompt in one.prompts or ()]
        columns = {name: [value for one in requests for value in one.columns[name]] for name in first.columns}
        scores = self.reward.score(texts, prompts, **columns)
        sizes = [len(one.texts) for one in requests]
        totals = scores.total.split(sizes)
        parts = {name: values.split(sizes) for name, values in scores.components.items()}
        return [
            RewardScores(total, {name: values[i] for name, values in parts.items()}) for i, total in enumerate(totals)
        ]
