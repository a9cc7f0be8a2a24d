import json
from types import SimpleNamespace

from transformers import TrainerControl, TrainerState

from tests.ppo.test_trainer import make_trainer
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.monitoring import callbacks
from trl_rewards_plugin.ppo.monitoring.callbacks import LogFileCallback
from trl_rewards_plugin.runs.layout import LOG


def lines(folder):
    return [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def test_the_file_grows_with_the_log_and_a_resume_removes_the_rows_it_will_repeat(tmp_path):
    folder = tmp_path / "run"
    args, control = SimpleNamespace(output_dir=str(folder)), TrainerControl()
    state, callback = TrainerState(is_world_process_zero=True), LogFileCallback()
    callback.on_train_begin(args, state, control)
    for step in (1, 2, 3):
        state.log_history.append({"step": step, "loss": 0.5})
        callback.on_log(args, state, control)
        assert lines(folder) == state.log_history
    resumed = TrainerState(is_world_process_zero=True, log_history=[{"step": 1, "loss": 0.5}])
    callback.on_train_begin(args, resumed, control)
    assert lines(folder) == [{"step": 1, "loss": 0.5}]


def test_one_process_writes(tmp_path):
    state = TrainerState(is_world_process_zero=False)
    LogFileCallback().on_train_begin(SimpleNamespace(output_dir=str(tmp_path)), state, TrainerControl())
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_its_whole_log(finished_run):
    state = json.loads((finished_run / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8"))
    rows = lines(finished_run)
    assert rows[: len(state["log_history"])] == state["log_history"]
    assert [row["step"] for row in rows if "objective/scores" in row] == [1, 2]


def test_a_run_draws_at_every_save_and_at_the_end(tmp_path, monkeypatch):
    drawn = []
    draw = callbacks.save_reward_curve

    def recorded(log_history, path):
        drawn.append(max(entry["step"] for entry in log_history))
        draw(log_history, path)

    monkeypatch.setattr(callbacks, "save_reward_curve", recorded)
    trainer = make_trainer(
        tiny_t5(tmp_path / "t5"), tmp_path / "run", total_episodes=12, save_strategy="steps", save_steps=1
    )
    trainer.train()
    assert drawn == [1, 2, 3, 3]
    assert (tmp_path / "run" / "reward_curve.png").read_bytes().startswith(b"\x89PNG")
