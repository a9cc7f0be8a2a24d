"""A run killed at random moments and resumed ends as if nothing had happened. The runs are made by killed_runs.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ppo.checkpoints.killed_runs import SAVE_STEPS
from tests.ppo.test_trainer import make_trainer
from tests.runs.test_lock import Holder
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.errors import InputError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(2, 1, id="2"), pytest.param(20, 0, id="20", marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, kills, seed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.ppo.checkpoints.killed_runs", str(tmp_path), str(kills), str(seed)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["kills"]) == kills
    assert any(kill["killed"] for kill in result["kills"])
    for kill in result["kills"]:
        assert not kill["failed"], (kill, done.stderr[-3000:])
        assert kill["digests"] == result["straight"], kill
        left = [int(name.rpartition("-")[2]) for name in kill["checkpoints"]]
        assert kill["resumed_at"] == max(left, default=0), kill
        assert max(kill["steps"], default=0) - kill["resumed_at"] <= SAVE_STEPS, kill  # all that was lost
        assert kill["folders"] == ["checkpoint-4", "checkpoint-5"], kill  # nothing of the killed save is left


def test_a_second_training_in_a_folder_is_refused_also_where_it_resumes(tmp_path):
    model, folder = tiny_t5(tmp_path / "t5"), tmp_path / "run"
    settings = {"total_episodes": 8, "num_ppo_epochs": 1, "save_strategy": "steps", "save_steps": 1}
    make_trainer(model, folder, **settings).train()
    second = make_trainer(model, folder, **settings)
    with Holder("writing_run", folder) as holder:
        for resume in (None, True, folder / "checkpoint-1"):
            with pytest.raises(InputError, match=f"process {holder.process.pid}, which is writing there"):
                second.train(resume_from_checkpoint=resume)
    assert second.train(resume_from_checkpoint=True).global_step == 2
