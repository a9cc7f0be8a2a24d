"""Real training runs of a transformers.Trainer that calls a reward in each step, as TRL's trainers do."""

import json

import pytest
import torch
from transformers import Trainer, TrainerState, TrainingArguments

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import MultiClassifierReward, RewardStateCallback


def number(completions, **kwargs):
    return [float(text) for text in completions]


def new_reward(name="reward"):
    return MultiClassifierReward([number], normalization="zscore", name=name)


class Scoring(Trainer):
    """Scores the texts of each batch, training and evaluation alike."""

    reward = None
    scored = None

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        texts = [str(value) for value in inputs["x"].flatten().tolist()]
        self.scored.append(self.reward(completions=texts, trainer_state=self.state))
        loss = model(inputs["x"]).square().mean()
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        return self.compute_loss(model, inputs).detach(), None, None


def train(folder, reward, callbacks, resume=None, **settings):
    args = TrainingArguments(
        str(folder), per_device_train_batch_size=2, per_device_eval_batch_size=4, max_steps=4, save_strategy="steps",
        save_steps=2, report_to=[], disable_tqdm=True, use_cpu=True, remove_unused_columns=False, logging_steps=100,
        **settings,
    )  # fmt: skip
    rows = [{"x": torch.tensor([float(value)])} for value in range(8)]
    held_out = [{"x": torch.tensor([100.0 * value])} for value in range(4)]
    torch.manual_seed(0)
    trainer = Scoring(torch.nn.Linear(1, 1), args, train_dataset=rows, eval_dataset=held_out, callbacks=callbacks)
    trainer.reward, trainer.scored = reward, []
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_resumed_run_continues_from_the_statistics_of_its_checkpoint(tmp_path):
    whole = new_reward()
    expected = train(tmp_path / "whole", whole, [RewardStateCallback(whole)]).scored
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    saved = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["reward_statistics"]
    assert saved["reward"]["statistics"]["number"]["count"] == 4
    resumed = new_reward()
    found = train(tmp_path / "elsewhere", resumed, [RewardStateCallback(resumed)], resume=str(checkpoint)).scored
    assert found == expected[2:]
    assert resumed.state_dict() == whole.state_dict()


def length(completions, **kwargs):
    return [float(len(text)) for text in completions]


def test_a_resumed_run_continues_from_the_multipliers_of_its_checkpoint_and_evaluates_the_objective(tmp_path):
    def new():
        return MultiClassifierReward([length, number], constraints={"number": {"max": 3}}, name="reward")

    evaluating = {"eval_strategy": "steps", "eval_steps": 1}
    whole, resumed = new(), new()
    expected = train(tmp_path / "whole", whole, [RewardStateCallback(whole)], **evaluating).scored
    assert whole.state_dict()["constraints"]["multipliers"]["number"]["max"] != 1.0
    # "0.0", "100.0", "200.0", "300.0": the objective alone, whatever the multipliers.
    assert [scores for scores in expected if len(scores) == 4] == [[3.0, 5.0, 5.0, 5.0]] * 4
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    found = train(tmp_path / "b", resumed, [RewardStateCallback(resumed)], resume=checkpoint, **evaluating).scored
    assert found == expected[4:]
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True},
        {"eval_strategy": "epoch"},
    ],
)
def test_evaluations_during_training_leave_the_statistics_alone(tmp_path, settings):
    reward, undisturbed = new_reward(), new_reward()
    train(tmp_path / "one", undisturbed, [RewardStateCallback(undisturbed)])
    trainer = train(tmp_path / "two", reward, [RewardStateCallback(reward)], **settings)
    assert len(trainer.scored) > 4
    assert reward.state_dict()["statistics"] == undisturbed.state_dict()["statistics"]
    # After training calls learn again.
    reward(["1.0"])
    assert reward.state_dict()["statistics"] != undisturbed.state_dict()["statistics"]


def test_evaluations_have_one_scale_in_a_resumed_run_too(tmp_path):
    evaluating = {"eval_strategy": "steps", "eval_steps": 1}

    def held_out(trainer):
        return [scores for scores in trainer.scored if len(scores) == 4]

    reward, resumed = new_reward(), new_reward()
    whole = held_out(train(tmp_path, reward, [RewardStateCallback(reward)], **evaluating))
    assert len(whole) == 4
    assert whole == [whole[0]] * 4
    checkpoint = str(tmp_path / "checkpoint-2")
    later = train(tmp_path / "b", resumed, [RewardStateCallback(resumed)], resume=checkpoint, **evaluating)
    assert held_out(later) == whole[2:]


def test_a_checkpoint_without_the_statistics_is_refused(tmp_path):
    reward = new_reward()
    train(tmp_path, reward, [])
    with pytest.raises(InputError, match="none in that of step 2"):
        train(tmp_path, reward, [RewardStateCallback(reward)], resume=str(tmp_path / "checkpoint-2"))


def test_a_resumed_run_without_the_callback_says_that_the_scale_starts_anew(tmp_path, caplog):
    train(tmp_path, new_reward(), [])
    reward = new_reward()
    train(tmp_path, reward, [RewardStateCallback(reward)])
    kept = new_reward()
    train(tmp_path / "b", kept, [RewardStateCallback(kept)], resume=str(tmp_path / "checkpoint-2"))
    assert "RewardStateCallback" not in caplog.text
    train(tmp_path / "c", new_reward(), [], resume=str(tmp_path / "checkpoint-2"))
    assert caplog.text.count("resumes at step 2") == caplog.text.count("callbacks=[RewardStateCallback(reward)]") == 1


def test_a_scale_that_nothing_was_learnt_for_yet_is_not_taken_for_a_resumed_run(tmp_path, caplog):
    def unscored(completions, **kwargs):
        return [None] * len(completions)

    reward = MultiClassifierReward([unscored], normalization="zscore")
    for step in range(3):
        reward(["a"], trainer_state=TrainerState(global_step=step))
    assert "resumes at step" not in caplog.text


def test_the_statistics_of_another_reward_are_refused(tmp_path):
    reward = new_reward()
    train(tmp_path, reward, [RewardStateCallback(reward)])
    other = new_reward("other")
    with pytest.raises(InputError, match="statistics of other"):
        train(tmp_path, other, [RewardStateCallback(other)], resume=str(tmp_path / "checkpoint-2"))


def test_only_named_combinations_are_taken():
    with pytest.raises(InputError, match="MultiClassifierRewards"):
        RewardStateCallback(number)
    with pytest.raises(InputError, match="no rewards"):
        RewardStateCallback()
    with pytest.raises(InputError, match="different names"):
        RewardStateCallback(new_reward(), new_reward())
