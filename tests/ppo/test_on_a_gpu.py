"""PPO on a device that is not the CPU: the same numbers, and how often it is waited for."""

import json
import subprocess
import sys

import pytest
import torch

from tests.ppo.on_a_gpu import MAKERS, measured


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the CPU finds, by model family, and what the pretended GPU prints."""
    folder = tmp_path_factory.mktemp("gpu")
    on_cpu = {}
    for family in MAKERS:
        on_cpu[family], rollout = measured(folder, family, "cpu")
        torch.save(rollout.tensors(), folder / f"{family}.pt")
    command = [sys.executable, "-m", "tests.ppo.on_a_gpu", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return on_cpu, json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("family", MAKERS)
def test_answers_updates_and_weights_are_those_of_the_cpu(both, family):
    cpu, gpu = both[0][family], both[1]["numbers"][family]
    assert gpu["answers"] == cpu["answers"]
    assert torch.tensor(gpu["logprobs"]).allclose(torch.tensor(cpu["logprobs"]), atol=1e-4)
    assert gpu["update"] == pytest.approx(cpu["update"], abs=1e-4)
    assert gpu["weights"] == pytest.approx(cpu["weights"], rel=1e-4, abs=1e-3)


def test_no_token_waits_for_the_device_and_a_mini_batch_waits_once(both):
    waits = both[1]["waits"]
    assert waits["12 tokens"] == waits["6 tokens"]
    rollouts, further_mini_batches = 2, 2 * 2
    assert waits["2 epochs more"] - waits["6 tokens"] == rollouts * further_mini_batches


def test_a_run_is_resumed_and_evaluated_there(both):
    assert both[1]["steps"] == 2
    assert abs(both[1]["reward"]) < 10
