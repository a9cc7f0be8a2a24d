"""One event loop in a thread of its own, on which async rewards run together while the caller continues.

It works where the calling thread runs a loop itself, as in TRL's trainers. One loop serves the whole process, so that
what a reward keeps between calls (an HTTP client's connections) stays usable.
"""

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.base import logger
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock
from trl_rewards_plugin.text import counted

FIRST_WAIT, LONGEST_WAIT = 0.5, 30
"""Seconds before the second attempt, which double with every further one, and at most."""

_FINAL = (InputError, ImportError, NameError)
"""What would be the same the next time; other errors may come of what a server answered."""

_lock = ForkSafeLock()
_loop: asyncio.AbstractEventLoop | None = None
_owner: int | None = None  # the process that it runs in


def background_loop() -> asyncio.AbstractEventLoop:
    """This process's loop, started on first use. A forked child gets its own: threads do not survive a fork."""
    global _loop, _owner
    with _lock:
        if _loop is None or _owner != os.getpid():
            _loop, _owner = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_run, args=(_loop,), name="async-rewards", daemon=True).start()
        return _loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


@contextmanager
def running(calls: Mapping[str, Callable[[], Awaitable[Any]]]) -> Iterator[dict[str, Future[Any]]]:
    """Starts all `calls` on the background loop; gives a future a name. On exit what still runs is cancelled.

    RuntimeError where it is called from the background loop itself, which would wait for itself.
    """
    if not calls:  # needs no thread
        yield {}
        return
    loop = background_loop()
    # The running loop of this thread, or None; unlike get_running_loop() it raises nothing.
    if asyncio._get_running_loop() is loop:
        step = "await asyncio.to_thread(reward, ...) instead"
        raise RuntimeError(f"a combination with async rewards was called from within an async reward; {step}")
    futures = {name: asyncio.run_coroutine_threadsafe(_awaited(call), loop) for name, call in calls.items()}
    try:
        yield futures
    finally:
        for future in futures.values():
            future.cancel()


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except SystemExit as error:  # would end the loop, and leave its caller waiting
        raise RuntimeError(f"SystemExit({error.code!r})") from error


def wait_after(attempt: int) -> float:
    """Seconds to wait after the failed `attempt`, counted from 0, up to FIRST_WAIT of them at random."""
    return min(FIRST_WAIT * 2.0 ** min(attempt, 9) + random.uniform(0, FIRST_WAIT), LONGEST_WAIT)


async def attempted(name: str, call: Callable[[], Awaitable[Any]], timeout: float | None, retries: int) -> Any:
    """What `call` returns within `timeout` seconds at one of 1 + `retries` attempts, or the error of the last one."""
    for attempt in range(retries + 1):
        try:
            async with asyncio.timeout(timeout) as limit:
                return await call()
        except Exception as error:
            if attempt == retries and limit.expired():
                raise TimeoutError(f"no scores within {timeout} s, attempt {attempt + 1} of {retries + 1}") from error
            if attempt == retries or isinstance(error, _FINAL):
                raise
            if attempt == 0:
                found = f"no scores within {timeout} s" if limit.expired() else f"{type(error).__name__}: {error}"
                logger.warning("reward %r: %s; trying again, up to %s", name, found, counted(retries, "time"))
        await asyncio.sleep(wait_after(attempt))
