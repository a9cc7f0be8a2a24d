"""Two CPU processes (gloo, `accelerate launch` with the shipped config) learn what one does: see two_processes.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ppo.two_processes import OBJECTIVES, ROLLOUT, SAMPLES, one_update, sample, store_rollout
from tests.tiny_models import tiny_t5

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that two processes have worked in."""
    folder = tmp_path_factory.mktemp("two")
    tiny_t5(folder / "model")
    torch.manual_seed(0)
    store_rollout(folder)
    config = ROOT / "examples" / "accelerate" / "ddp.yaml"
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    command = [sys.executable, *launch, "-m", "tests.ppo.two_processes", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    (folder / "output.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"rank{number}.pt", weights_only=False) for number in (0, 1)]


def assert_equal(ours, theirs, tolerance=0.0):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], rtol=0, atol=tolerance), name


def test_an_update_on_a_stored_rollout_is_that_of_one_process(folder, ranks):
    one, two = one_update(folder, 1), [rank["update"] for rank in ranks]
    assert [rank["processes"] for rank in ranks] == [2, 2]
    advantages = [row for part in two for row in part["advantages"]]
    assert len(advantages) == len(one["advantages"]) == ROLLOUT
    for ours, theirs in zip(one["advantages"], advantages, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    start = torch.load(folder / "rollout.pt")
    assert start["values"].abs().max() > 1  # there was something to learn
    for part in two:
        assert_equal(one["weights"], part["weights"], 1e-5)
        assert part["kl_coef"] == pytest.approx(one["kl_coef"], abs=1e-7)
        for name, value in one["logged"].items():
            assert part["logged"][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert_equal(two[0]["weights"], two[1]["weights"])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_update_by_another_objective_is_that_of_one_process(folder, ranks, objective):
    one = one_update(folder, 1, **OBJECTIVES[objective])
    start = load_file(folder / "model" / "model.safetensors")
    assert (
        one["weights"]["policy.lm_head.weight"] - start["lm_head.weight"]
    ).abs().max() > 1e-3  # there was something to learn
    for part in (rank["objectives"][objective] for rank in ranks):
        assert_equal(one["weights"], part["weights"], 1e-5)
        for name in ("loss/policy_avg", "loss/total_avg"):
            assert part["logged"][name] == pytest.approx(one["logged"][name], rel=1e-5, abs=1e-6), name


def test_the_processes_draw_different_responses_from_the_same_distribution(folder, ranks):
    parts = [rank["sample"] for rank in ranks]
    assert not torch.equal(parts[0], parts[1])
    tokens = 147
    counts = [torch.bincount(first, minlength=tokens).double() for first in (sample(folder, 1), torch.cat(parts))]
    assert [int(count.sum()) for count in counts] == [SAMPLES, SAMPLES]
    common = counts[0] + counts[1] >= 10
    assert common.sum() > 20
    # Two samples of one distribution: chi-squared with as many degrees of freedom as tokens, less one.
    ours, theirs = (count[common] for count in counts)
    freedom = common.sum().item() - 1
    distance = ((ours - theirs) ** 2 / (ours + theirs)).sum().item()
    assert abs(distance - freedom) < 5 * (2 * freedom) ** 0.5
    halves = [torch.bincount(first, minlength=tokens).double()[common] for first in parts]
    distance = ((halves[0] - halves[1]) ** 2 / (halves[0] + halves[1]).clamp(min=1)).sum().item()
    assert abs(distance - freedom) < 5 * (2 * freedom) ** 0.5


def test_a_full_run_leaves_one_set_of_files_and_one_log(folder, ranks):
    output = folder / "run"
    assert {"config.json", "model.safetensors"} <= {path.name for path in output.iterdir()}
    assert sorted(path.name for path in output.glob("checkpoint-*")) == [f"checkpoint-{step}" for step in (2, 4, 5)]
    states = {path.name for path in (output / "checkpoint-2").glob("rng_state*")}
    assert states == {"rng_state_0.pth", "rng_state_1.pth"}
    runs = [rank["run"] for rank in ranks]
    assert_equal(runs[0]["weights"], runs[1]["weights"])
    assert runs[0]["metrics"] == runs[1]["metrics"]
    episodes = [row["episode"] for row in runs[0]["log"] if "episode" in row]
    assert episodes == [ROLLOUT * step for step in (1, 2, 3, 4, 5)]
    printed = (folder / "output.txt").read_text()
    assert printed.count("'train_runtime'") == 6  # each of the six finished trainings once, not by each process


def test_two_processes_resume_bit_for_bit(ranks):
    for rank in ranks:
        assert_equal(rank["run"]["weights"], rank["resumed"]["weights"])
        assert rank["run"]["reward"] == rank["resumed"]["reward"]
        assert rank["run"]["draws"][0] == rank["resumed"]["draws"][0]
        assert torch.equal(rank["run"]["draws"][1], rank["resumed"]["draws"][1])
    assert ranks[0]["run"]["reward"] != ranks[1]["run"]["reward"]  # each process has its own


def test_the_checks_of_a_first_update_and_of_a_save_stop_both_processes(ranks):
    first, second = (rank["refusals"] for rank in ranks)
    assert "nats per token on the first rollout" in first["moved"]
    assert first["moved"] == second["moved"]  # a mean over both
    assert first["cut"] == second["cut"] == "none in: encoder"
    assert "differ from it" in first["forgets"]
    assert second["forgets"] == ""  # the first one alone saves
