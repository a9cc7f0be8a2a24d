import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.combining.running_statistics import RunningStatistics, moments_of


def batch(*values):
    return {"a": torch.tensor(values)}


def learn(running, scores):
    running.learn(running.batches(scores))


def test_batches_add_up():
    running = RunningStatistics(["a"])
    learn(running, batch(1.0, 2.0))
    learn(running, batch(6.0))
    assert running.moments["a"] == moments_of(torch.tensor([1.0, 2.0, 6.0]))


def test_after_shows_the_statistics_before_they_are_learnt():
    running = RunningStatistics(["a"])
    learn(running, batch(1.0, 2.0))
    before = running.state_dict()
    new = running.batches(batch(6.0))
    known = running.after(new)
    assert running.state_dict() == before
    running.learn(new)
    assert running.moments == known


def test_the_state_goes_through_json_and_pickle():
    running = RunningStatistics(["a"])
    learn(running, {"a": torch.randn(9)})
    fresh = RunningStatistics(["a"])
    fresh.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert fresh.moments == running.moments == pickle.loads(pickle.dumps(running)).moments
    # The lock is new on the other side.
    learn(pickle.loads(pickle.dumps(running)), batch(1.0))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "statistics of a"),
        ({"b": {}}, "statistics of a"),
        (None, "statistics of a"),
        ({"a": None}, "count, mean and m2"),
        ({"a": {"count": 1, "mean": 0.0}}, "count, mean and m2"),
        ({"a": {"count": 1, "mean": "0", "m2": 0.0}}, "count, mean and m2"),
        ({"a": {"count": 1, "mean": float("nan"), "m2": 0.0}}, "count, mean and m2"),
        ({"a": {"count": -1, "mean": 0.0, "m2": 0.0}}, "count, mean and m2"),
    ],
)
def test_another_state_is_refused_and_changes_nothing(state, message):
    running = RunningStatistics(["a"])
    learn(running, batch(1.0, 2.0))
    before = running.state_dict()
    with pytest.raises(InputError, match=message):
        running.load_state_dict(state)
    assert running.state_dict() == before


def test_no_batch_is_lost_between_threads():
    running = RunningStatistics(["a"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda value: learn(running, batch(float(value))), range(400)))
    found, expected = running.moments["a"], moments_of(torch.arange(400.0))
    assert (found.count, found.mean, found.m2) == pytest.approx((expected.count, expected.mean, expected.m2))


PROCESS = """
import json, sys, torch
from trl_rewards_plugin.rewards.combining.running_statistics import RunningStatistics
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
running = RunningStatistics(["a"])
running.learn(running.batches({"a": torch.tensor([1.0, 2.0]) if rank == 0 else torch.tensor([6.0])}))
print(json.dumps(running.state_dict()))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_every_process_learns_from_all(tmp_path):
    commands = [[sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "meet")] for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda command: subprocess.run(command, check=True, capture_output=True), commands))
    found = [json.loads(process.stdout) for process in ended]
    assert found[0] == found[1]
    assert found[0]["a"] == pytest.approx(asdict(moments_of(torch.tensor([1.0, 2.0, 6.0]))))
