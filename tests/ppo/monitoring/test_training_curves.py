import numpy as np
from matplotlib import image

from tests.ppo.test_trainer import make_trainer
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.monitoring import training_curves as curves


def row(step, **more):
    return {
        "step": step, "objective/scores": 0.1 * step, "objective/kl": 0.5 * step, "objective/entropy": 1.0,
        "tokens/responses_len_mean": 9.0, **more,
    }  # fmt: skip


def colours(path):
    """How many pixels of the picture are blue (rollouts) and orange (held-out prompts)."""
    pixels = image.imread(path)[..., :3]
    blue, orange = ((np.abs(pixels - colour) < 0.1).all(-1).sum() for colour in ([0.12, 0.47, 0.71], [1, 0.5, 0.05]))
    return blue, orange


def test_the_picture_shows_rollouts_and_evaluations(tmp_path):
    path = tmp_path / "new" / "curves.png"
    rollouts = [row(step) for step in range(1, 31)]
    curves.save_training_curves(rollouts, path)
    blue, orange = colours(path)
    assert blue > 1000
    assert orange == 0
    evaluations = [{"step": step, "eval_reward": 1.0, "eval_kl": 2.0, "eval_length": 9.0} for step in (0, 15, 30)]
    curves.save_training_curves([*rollouts, *evaluations, {"step": 30, "epoch_reward": 0.5}], path)
    assert colours(path)[1] > 500
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_equal_logs_give_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        curves.save_training_curves([row(1)], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_a_rollout_there_is_nothing_to_draw(tmp_path):
    curves.save_training_curves([{"step": 0, "eval_reward": 1.0}], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_a_run_draws_at_every_save_and_at_the_end(tmp_path, monkeypatch):
    drawn = []
    draw = curves.save_training_curves

    def recorded(log_history, path):
        drawn.append(max(entry["step"] for entry in log_history))
        draw(log_history, path)

    monkeypatch.setattr(curves, "save_training_curves", recorded)
    trainer = make_trainer(
        tiny_t5(tmp_path / "t5"), tmp_path / "run", total_episodes=12, save_strategy="steps", save_steps=1
    )
    trainer.train()
    assert drawn == [1, 2, 3, 3]
    assert colours(tmp_path / "run" / "training_curves.png")[0] > 500
