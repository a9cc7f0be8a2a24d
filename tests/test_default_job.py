"""The README's first command meets its bars: time, memory, gain and guards, over three seeds."""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MINUTES, GIBIBYTES = 5, 4


@dataclass(frozen=True)
class Job:
    """One finished default job: its metrics, what it printed, its seconds and its folder."""

    metrics: dict
    stdout: str
    stderr: str
    seconds: float
    folder: Path


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """The default job with seeds 0, 1 and 2, one after the other."""
    done = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp("run") / f"seed{seed}"
        command = [sys.executable, "-m", "trl_rewards_plugin.cli.main", "train"]
        flags = ["--seed", str(seed), "--output_dir", str(folder)]
        started = time.monotonic()
        run = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
        metrics = json.loads((folder / "metrics.json").read_text())
        done.append(Job(metrics, run.stdout, run.stderr, time.monotonic() - started, folder))
    return done


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def test_it_stays_within_its_time_and_memory(jobs):
    assert max(job.seconds for job in jobs) < 60 * MINUTES
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, of the largest child so far
    assert peak < GIBIBYTES * 2**20


def test_the_gain_is_real_with_every_seed(jobs):
    for job in jobs:
        assert job.metrics["reward_gain"]["ci95"][0] > 0


def test_the_gain_is_large_and_no_component_falls(jobs):
    """Over the three seeds: a mean over 96 sampled outputs has a standard error of about a tenth."""
    gain = mean(job.metrics["reward_gain"]["mean"] for job in jobs)
    assert gain >= 0.5 * mean(job.metrics["before_std"]["reward"] for job in jobs)
    for name in ("acceptability", "neutrality"):
        assert mean(job.metrics["component_gain"][name]["mean"] for job in jobs) >= 0, name


def test_the_guards_hold(jobs):
    for job in jobs:
        guard = job.metrics["guard"]
        for name in ("rouge_l_source", "output_length"):
            assert 0.8 <= guard[name]["after"] / guard[name]["before"] <= 1.25, name
        for name in ("distinct", "not_whole_input"):
            assert guard[name]["after"] >= 0.9 * guard[name]["before"], name


def test_what_happened_can_be_counted(jobs):
    for job in jobs:
        trailing, ended = job.metrics["counts"].values()
        assert trailing["before"] > 0.5
        assert trailing["after"] < 0.1
        assert ended["before"] < 0.5
        assert ended["after"] > 0.9
        assert (
            job.stdout.index("trail off with a stray like")
            < job.stdout.index("Best gain")
            < job.stdout.index("95% CI")
        )


def test_it_shows_a_progress_line_a_table_and_samples_and_leaves_the_run_folder(jobs):
    job = jobs[0]
    lines = job.stderr.replace("\n", "\r").split("\r")
    assert any(all(word in line for word in ("episode", "reward", "kl", "length", "left")) for line in lines)
    assert "95% CI" in job.stdout
    assert "source:" in job.stdout
    names = {path.name for path in job.folder.iterdir()}
    assert {
        "README.md", "completions.parquet", "config.json", "config.yaml", "metrics.json", "model.safetensors",
        "reward_curve.png", "tokenizer.json",
    } <= names  # fmt: skip
