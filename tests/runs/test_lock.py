import os
import subprocess
import sys
import threading

import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.lock import writing_file, writing_run


class Holder:
    """Another process that holds a lock until it is killed or its input ends."""

    # A forked worker outlives its parent and is the one to say "ready": until it runs, it holds its parent's lock.
    CODE = """
import os, sys
from pathlib import Path
from trl_rewards_plugin.runs import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2])):
    forks = sys.argv[3] == "True"
    if forks and os.fork() == 0:
        print("ready", flush=True)
        sys.stdin.read()
        os._exit(0)
    if not forks:
        print("ready", flush=True)
    sys.stdin.read()
"""

    def __init__(self, kind, place, *, fork=False):
        command = [sys.executable, "-c", self.CODE, kind, str(place), str(fork)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.communicate()


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path):
    folder = tmp_path / "run"
    with Holder("writing_run", folder) as holder:
        step = "wait until it has ended, stop it, or choose another output_dir"
        found = f"process {holder.process.pid}, which is writing there"
        message = f"no other process that writes to {folder}\nFound:    {found}\nNext:     {step}"
        with pytest.raises(InputError, match=message), writing_run(folder):
            pytest.fail("two writers")
    assert list(folder.iterdir()) == []
    with writing_run(folder):
        pass


@pytest.mark.parametrize("fork", [False, True])
def test_a_lock_ends_with_its_process_though_a_worker_of_it_lives_on(tmp_path, fork):
    path = tmp_path / "scores.jsonl"
    with Holder("writing_file", path, fork=fork) as holder:
        with (
            pytest.raises(InputError, match=rf"process {holder.process.pid}.*\n.*another --output"),
            writing_file(path),
        ):
            pytest.fail("two writers")
        holder.kill()
        with writing_file(path):
            assert [file.name for file in tmp_path.iterdir()] == [".scores.jsonl.writer.lock"]
    assert list(tmp_path.iterdir()) == []


def test_nested_locks_of_one_thread_are_one_and_another_thread_is_refused(tmp_path):
    refused = []

    def write_too():
        try:
            with writing_run(tmp_path / "."):
                pass
        except InputError as error:
            refused.append(error.found)

    with writing_run(tmp_path):
        with writing_run(tmp_path):
            pass
        thread = threading.Thread(target=write_too)
        thread.start()
        thread.join()
    assert refused == [f"process {os.getpid()}, which is writing there"]


def test_different_places_have_different_locks(tmp_path):
    with writing_run(tmp_path), writing_file(tmp_path / "a.csv"), writing_file(tmp_path / "b.csv"):
        assert len(list(tmp_path.iterdir())) == 3


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    with pytest.raises(InputError, match="a place to write to"), writing_file(tmp_path / "missing" / "a.csv"):
        pytest.fail("no such folder")
