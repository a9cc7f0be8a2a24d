"""The examples for TRL's trainers run as they stand, with fewer steps."""

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# TRL uses names that the newest transformers deprecates, and says that its PPO is experimental.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:trl"),
]
SHORT = {
    "grpo": {"max_steps": 2, "per_device_train_batch_size": 8},
    "rloo": {"max_steps": 2, "per_device_train_batch_size": 8},
    "online_dpo": {"max_steps": 2, "per_device_train_batch_size": 4},
    "trl_ppo": {"total_episodes": 16, "per_device_train_batch_size": 8},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_an_example_runs_and_prints_what_changed(name, tmp_path, monkeypatch, capsys):
    if name == "trl_ppo":
        pytest.importorskip("trl.experimental.ppo", reason="TRL removed its PPOTrainer in 1.13", exc_type=ImportError)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module(name)
    try:
        module.main(output_dir=str(tmp_path), use_cpu=True, **SHORT[name])
    finally:
        del sys.modules[name]
    assert " -> " in capsys.readouterr().out
