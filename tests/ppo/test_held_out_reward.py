"""A second judge that training never sees: measured with every evaluation, over a resume, and an alarm."""

import logging
from pathlib import Path

import pytest
from transformers import TrainerCallback

from tests.ppo.test_evaluation import EVERY_STEP, evaluations, vowels, z_scored
from tests.ppo.test_trainer import dataset, rollout_rows
from tests.tiny_models import tiny_classifier, tiny_t5
from trl_rewards_plugin.charts.series import own_rows, panels, series_of
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring.alarms import AlarmError
from trl_rewards_plugin.ppo.monitoring.callbacks import LogFileCallback
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward
from trl_rewards_plugin.runs.read import read_log

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


def consonants(completions, **kwargs):
    return [1 - share for share in vowels(completions)]


def words(completions, **kwargs):
    return [float(len(text.split())) for text in completions]


class ByStep:
    """A score for each step, whatever the text."""

    def __init__(self, name, scores):
        self.__name__, self.scores, self.calls = name, scores, 0

    def __call__(self, completions, trainer_state, **kwargs):
        self.calls += 1
        noise = 0.01 * (trainer_state.global_step % 2)
        return [self.scores[trainer_state.global_step] + noise] * len(completions)


SHORT = {
    "per_device_train_batch_size": 4, "response_length": 6, "learning_rate": 1e-3, "report_to": "none", "seed": 3,
    "disable_tqdm": True, "save_strategy": "no", "use_cpu": True,
}  # fmt: skip


def make(model, folder, held_out, reward=vowels, callbacks=None, **settings):
    args = Seq2SeqPPOConfig(output_dir=str(folder), **{**SHORT, **settings})
    return Seq2SeqPPOTrainer(model, reward, args, dataset(), dataset(5), callbacks=callbacks, held_out_reward=held_out)


def test_every_evaluation_has_it_and_its_parts_and_no_rollout_has(model, tmp_path):
    pair = MultiClassifierReward([consonants, words], [2.0, 0.5])
    trainer = make(model, tmp_path, pair, **EVERY_STEP, total_episodes=8)
    trainer.train()
    assert len(evaluations(trainer)) == 2
    for row in evaluations(trainer):
        parts = [row[f"eval_held_out_rewards/{name}/mean"] for name in ("consonants", "words")]
        assert row["eval_held_out_reward"] == pytest.approx(2.0 * parts[0] + 0.5 * parts[1], abs=1e-5)
        assert row["eval_reward"] + parts[0] == pytest.approx(1.0, abs=1e-5)
    assert not [key for row in rollout_rows(trainer) for key in row if "held_out" in key or "consonants" in key]


def test_training_is_what_it_is_without_it(model, tmp_path):
    logs = []
    for name, held_out in (("without", None), ("with", words)):
        trainer = make(model, tmp_path / name, held_out, **EVERY_STEP, total_episodes=12)
        trainer.train()
        logs.append([(row["objective/scores"], row["loss/total_avg"]) for row in rollout_rows(trainer)])
    assert logs[0] == logs[1]


def test_the_missing_eos_costs_the_reward_and_not_the_held_out_judge(model, tmp_path):
    row = make(model, tmp_path, consonants, missing_eos_penalty=1e3, suppress_tokens=[1]).evaluate()
    assert row["eval_reward"] < -900
    assert 0 <= row["eval_held_out_reward"] <= 1


def test_it_chooses_the_best_model_over_a_resume(model, tmp_path):
    best = {**EVERY_STEP, "metric_for_best_model": "eval_held_out_reward", "total_episodes": 16}
    # In steps 1 to 4 the second judge likes the model of step 2 most, and the reward that of step 4.
    first = ByStep("first", [0, 1, 2, 3, 4])
    whole = make(model, tmp_path, ByStep("judge", [0, 1, 3, 2, 1]), first, load_best_model_at_end=True, **best)
    whole.train()
    assert whole.state.best_model_checkpoint.endswith("checkpoint-2")
    again = make(model, tmp_path, ByStep("judge", [0, 1, 3, 2, 1]), first, load_best_model_at_end=True, **best)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again.state.best_model_checkpoint.endswith("checkpoint-2")
    assert again.state.best_metric == pytest.approx(3.0)


RISING = [float(step) for step in range(11)]
FALLING = [0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0]


def test_the_alarm_is_raised_and_counted_over_a_resume_and_stops_where_asked(model, tmp_path, caplog):
    settings = {**EVERY_STEP, "total_episodes": 40}
    with caplog.at_level(logging.WARNING):
        make(model, tmp_path / "run", ByStep("judge", FALLING), ByStep("first", RISING), **settings).train()
    said = [record.getMessage() for record in caplog.records if "eval_held_out_reward fell" in record.getMessage()]
    assert len(said) == 1
    assert "while eval_reward changed by +" in said[0]
    assert "exploits what the reward gets wrong" in said[0]
    step = int(said[0].split("step ")[1].split(":")[0])
    assert 7 <= step <= 10
    stopping = {**settings, "stop_on": ["held_out_reward"]}
    stopped = make(model, tmp_path / "run", ByStep("judge", FALLING), ByStep("first", RISING), **stopping)
    with pytest.raises(AlarmError, match=rf"^step {step}: since step \d eval_held_out_reward fell by"):
        stopped.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))


def test_an_evaluation_of_other_prompts_raises_nothing(model, tmp_path, caplog):
    class Others(TrainerCallback):
        """Evaluates on other prompts after every step."""

        def on_step_end(self, args, state, control, **kwargs):
            trainer.evaluate(dataset(3), metric_key_prefix="other")

    trainer = make(model, tmp_path, ByStep("judge", FALLING), ByStep("first", RISING), total_episodes=40)
    trainer.add_callback(Others())
    trainer.train()
    assert "eval_held_out_reward fell" not in caplog.text
    assert trainer.run_log.alarms.times["held_out_reward"] == 0


def test_evaluations_of_other_prompts_under_the_same_prefix_are_no_part_of_the_series(model, tmp_path, caplog):
    class Others(TrainerCallback):
        """Evaluates three other prompts before every step."""

        def on_step_begin(self, args, state, control, **kwargs):
            trainer.evaluate(dataset(3))

    class OfOwnPrompts(ByStep):
        """A score for each step of the evaluation's own five prompts, and 100 for others."""

        def __call__(self, completions, **kwargs):
            scores = super().__call__(completions, **kwargs)
            return [100.0] * 3 if len(completions) == 3 else scores

    settings = {**EVERY_STEP, "total_episodes": 40, "callbacks": [LogFileCallback(), Others()]}
    trainer = make(model, tmp_path, OfOwnPrompts("judge", FALLING), OfOwnPrompts("first", RISING), **settings)
    trainer.train()
    assert "eval_held_out_reward fell" in caplog.text
    (drawn,) = (one for one in panels([trainer.state.log_history]) if one.title == "Held-out reward")
    for log in (trainer.state.log_history, read_log(Path(trainer.args.output_dir))):
        (series,) = series_of(log, drawn, "", 0)
        assert max(series.values) < 100


def test_evaluations_are_a_series_where_all_prompts_are_given_to_evaluate(model, tmp_path):
    trainer = make(model, tmp_path, vowels, consonants)
    own, trainer.eval_dataset = trainer.eval_dataset, None
    trainer.evaluate(own)
    (row,) = own_rows(trainer.state.log_history)
    assert "eval_held_out_reward" in row


def same_judge(folder, **more):
    return ClassifierReward(str(folder), label="acceptable", **more)


def test_a_judge_that_training_sees_is_refused_in_any_disguise(model, tmp_path):
    folder = tiny_classifier(tmp_path / "judge", ("unacceptable", "acceptable"))
    for reward, held_out in (
        (vowels, vowels),
        (MultiClassifierReward([vowels, words]), words),
        (MultiClassifierReward([vowels, words]), MultiClassifierReward([words, vowels], [0.5, 2.0])),
        (same_judge(folder), same_judge(folder, name="other", score_type="probability")),
        (MultiClassifierReward([same_judge(folder), vowels]), MultiClassifierReward([same_judge(folder)])),
    ):
        with pytest.raises(InputError, match="a held_out_reward that training does not see"):
            make(model, tmp_path, held_out, reward)
    make(model, tmp_path, MultiClassifierReward([same_judge(folder), words]), same_judge(folder))


@pytest.mark.parametrize(
    ("held_out", "settings", "expected"),
    [
        ("owner/judge", {}, "wrap it: ClassifierReward"),
        ([vowels, words], {}, "reward callables"),
        (z_scored, {}, "fixed scale"),
        (None, {**EVERY_STEP, "metric_for_best_model": "eval_held_out_reward"}, "metric_for_best_model names it"),
        (None, {"stop_on": ["held_out_reward"]}, "stop_on names it"),
        (words, {"stop_on": ["held_out_reward"]}, "eval_strategy='steps'"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(tmp_path, held_out, settings, expected):
    held_out = z_scored() if held_out is z_scored else held_out
    with pytest.raises(InputError, match=expected):
        make("no/such/model", tmp_path, held_out, consonants, **settings)
