"""The README's first command meets its bars: time, memory, gain and guards, over three seeds."""

import json
import os
import resource
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

MINUTES, GIBIBYTES = 5, 4


@pytest.fixture(scope="module", params=[0, 1, 2])
def job(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / f"seed{request.param}"
    command = [sys.executable, "-m", "trl_rewards_plugin.cli.main", "train"]
    flags = ["--seed", str(request.param), "--output_dir", str(folder)]
    started = time.monotonic()
    run = subprocess.run([*command, *flags], capture_output=True, text=True, check=True, env=os.environ)
    return json.loads((folder / "metrics.json").read_text()), run, time.monotonic() - started, folder


def test_it_stays_within_its_time_and_memory(job):
    _, _, seconds, _ = job
    assert seconds < 60 * MINUTES
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, of the largest child so far
    assert peak < GIBIBYTES * 2**20


def test_the_gain_is_real_and_large(job):
    metrics, *_ = job
    assert metrics["reward_gain"]["ci95"][0] > 0
    assert metrics["reward_gain"]["mean"] >= 0.5 * metrics["before_std"]["reward"]
    for name, gain in metrics["component_gain"].items():
        assert gain["mean"] >= 0, name


def test_the_guards_hold(job):
    guard = job[0]["guard"]
    for name in ("rouge_l_source", "output_length"):
        assert 0.8 <= guard[name]["after"] / guard[name]["before"] <= 1.25, name
    for name in ("distinct", "not_whole_input"):
        assert guard[name]["after"] >= 0.9 * guard[name]["before"], name


def test_it_shows_a_progress_line_a_table_and_samples_and_leaves_the_run_folder(job):
    _, run, _, folder = job
    last = run.stderr.replace("\n", "\r").split("\r")
    assert any("reward" in line and "kl" in line and "length" in line and "left" in line for line in last)
    assert "95 % interval" in run.stdout
    assert "source:" in run.stdout
    names = {path.name for path in folder.iterdir()}
    assert {
        "README.md", "completions.parquet", "config.json", "config.yaml", "metrics.json", "model.safetensors",
        "reward_curve.png", "tokenizer.json",
    } <= names  # fmt: skip
