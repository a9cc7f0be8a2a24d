"""TRL's own command line, as a process of its own, finds a reward of ours by its dotted path."""

import json
import os
import pkgutil
import subprocess
import sys

import pytest

from tests.documentation import ROOT, blocks_of
from tests.rewards.tiny_causal import PROMPTS, tiny_causal
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import presets


def test_a_reward_file_has_a_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "reward.yaml").write_text("rewards:\n- function: length\n  max_length: 3\n", encoding="utf-8")
    monkeypatch.delenv("TRL_REWARDS_FILE", raising=False)
    with pytest.raises(InputError, match="TRL_REWARDS_FILE=reward"):
        pkgutil.resolve_name("trl_rewards_plugin.rewards.presets.file")
    monkeypatch.setenv("TRL_REWARDS_FILE", str(tmp_path / "reward.yaml"))
    reward = pkgutil.resolve_name("trl_rewards_plugin.rewards.presets.file")
    monkeypatch.delitem(vars(presets), "file")
    assert reward.__name__ == "reward"
    assert reward(completions=["a b", "a b c d e f"]) == [1.0, 0.0]


@pytest.mark.slow
def test_trl_trains_for_a_reward_file_by_the_command_of_the_page(tmp_path):
    import pandas

    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    presets.tiny.save_preset(tmp_path / "reward.yaml")
    page = next(block for block in blocks_of(ROOT / "docs/how-to/own-reward.md") if "trl grpo" in block.code)
    command = page.code.replace("Qwen/Qwen2.5-0.5B-Instruct", str(tiny_causal(tmp_path / "model"))).rstrip()
    command += " --max_steps 1 --num_generations 4 --logging_steps 1 --report_to none --use_cpu --log_completions true"
    # TRL's command hands over to accelerate's launcher, as on a user's machine.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    environment["PATH"] = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    run = subprocess.run(
        ["bash", "-ec", command], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr[-3000:]
    run_folder = tmp_path / "runs" / "grpo"
    state = json.loads(next(run_folder.glob("checkpoint-*/trainer_state.json")).read_text())
    logged = state["log_history"][0]
    assert logged["reward"] == pytest.approx(logged["rewards/tiny/mean"], abs=1e-6)
    table = pandas.read_parquet(run_folder / "completions" / "completions_00001.parquet")
    scores = presets.tiny.score(list(table["completion"]))
    assert logged["rewards/tiny/mean"] == pytest.approx(scores.total.mean().item(), rel=0, abs=1e-5)
    for name, values in scores.components.items():
        assert list(table[name]) == pytest.approx(values.tolist(), rel=0, abs=1e-5)
        assert logged[f"rewards/{name}/mean"] == pytest.approx(values.mean().item(), rel=0, abs=1e-5)
