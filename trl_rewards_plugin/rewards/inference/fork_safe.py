"""A lock that a forked child can take: threads do not survive a fork, and what they held would be held for ever.

Leaves out: what the lock guards, which a thread may have left half-done in the child; its owner asks `was_broken`.
"""

import os
import threading
import weakref


class ForkSafeLock:
    """A reentrant lock. In a forked child it is free unless the thread that forked holds it itself; pickled free."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._was_broken = False
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def __reduce__(self) -> "tuple[type[ForkSafeLock], tuple[()]]":
        return type(self), ()

    def was_broken(self) -> bool:
        """Whether another thread held it when this process was forked; asked once, under the lock."""
        was_broken, self._was_broken = self._was_broken, False
        return was_broken

    def renew(self) -> None:
        """In a child: frees it if a thread holds it that is not there."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()
            self._was_broken = True


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=lambda: list(map(ForkSafeLock.renew, list(_locks))))
