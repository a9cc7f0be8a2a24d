import os
import signal
import threading
import time

import pytest

from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_child(work, seconds=60):
    """The exit code of `work` in a forked child; it is killed where it hangs."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_takes_a_lock_that_another_thread_held():
    lock, taken, finish = ForkSafeLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            finish.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()

    def work():
        with lock:
            assert lock.was_broken()
            assert not lock.was_broken()

    try:
        assert in_child(work, seconds=10) == 0
    finally:
        finish.set()
        thread.join()
    with lock:
        assert not lock.was_broken()


def test_a_thread_that_forks_while_it_holds_the_lock_keeps_it():
    lock = ForkSafeLock()

    def work():
        with lock:
            assert not lock.was_broken()

    with lock:
        assert in_child(work, seconds=10) == 0


def test_a_child_scores_while_its_parent_was_scoring(tiny_run):
    from trl_rewards_plugin import MultiClassifierReward

    reward = MultiClassifierReward.from_preset(tiny_run.reward)
    reward(completions=["a"])
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            reward(completions=["the dog sees a cat " * 20] * 8)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(4):
            time.sleep(0)
            assert in_child(lambda: reward(completions=["y"])) == 0
    finally:
        stop.set()
        thread.join()
