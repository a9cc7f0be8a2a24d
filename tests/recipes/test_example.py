import importlib.util
from pathlib import Path

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin import MultiClassifierReward, assets

SCRIPT = Path(__file__).parents[2] / "examples" / "seq2seq_ppo.py"


def test_the_example_trains_and_saves(tiny_run, tmp_path, monkeypatch):
    """On tiny random models in place of the bundled ones, which would take minutes."""
    folders = {"tiny-t5": Path(tiny_run.model), "prompts": assets.asset_path("prompts")}
    reward = MultiClassifierReward.from_preset(tiny_run.reward)
    monkeypatch.setattr(assets, "asset_path", folders.__getitem__)
    monkeypatch.setattr(MultiClassifierReward, "from_preset", {"tiny": reward}.__getitem__)
    spec = importlib.util.spec_from_file_location("seq2seq_ppo_example", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    trainer = example.main(str(tmp_path / "run"), **{**SHORT, "response_length": 4})
    assert trainer.state.global_step == 2
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_the_example_is_short():
    code = [line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 30
