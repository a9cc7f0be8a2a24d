from tests.ppo.test_trainer import make_trainer
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.monitoring import training_curves as curves


def test_a_run_draws_at_every_save_and_at_the_end(tmp_path, monkeypatch):
    drawn = []
    draw = curves.save_reward_curve

    def recorded(log_history, path):
        drawn.append(max(entry["step"] for entry in log_history))
        draw(log_history, path)

    monkeypatch.setattr(curves, "save_reward_curve", recorded)
    trainer = make_trainer(
        tiny_t5(tmp_path / "t5"), tmp_path / "run", total_episodes=12, save_strategy="steps", save_steps=1
    )
    trainer.train()
    assert drawn == [1, 2, 3, 3]
    assert (tmp_path / "run" / "reward_curve.png").read_bytes().startswith(b"\x89PNG")
