"""Checkpoints are whole or absent; damaged ones are named and passed over; rewards get their running state back."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.cards.callback import ModelCardCallback
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo import trainer as trainer_module
from trl_rewards_plugin.ppo.checkpoints import restartable_trainer as restart
from trl_rewards_plugin.ppo.checkpoints.state import (
    frozen_rewards,
    load_run_state,
    mark_untied_embeddings,
    restore_weights,
)
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.distributed import check_launch, check_sharding
from trl_rewards_plugin.ppo.monitoring.callbacks import TrainingCurvesCallback
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.rewards import MultiClassifierReward
from trl_rewards_plugin.runs.checkpoints import UNFINISHED, checkpoints, damage, find_checkpoint, resumed_run


class Centred:
    """Length less its running mean."""

    __name__ = "centred"

    def __init__(self):
        self.count, self.mean = 0, 0.0

    def __call__(self, completions, **kwargs):
        for text in completions:
            self.count += 1
            self.mean += (len(text) - self.mean) / self.count
        return [len(text) - self.mean for text in completions]

    def state_dict(self):
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state):
        self.count, self.mean = state["count"], state["mean"]


def length(completions, **kwargs):
    return [float(len(text)) for text in completions]


def make_trainer(model, folder, reward=None, **settings):
    settings = {
        "per_device_train_batch_size": 2,
        "response_length": 4,
        "num_ppo_epochs": 1,
        "max_steps": 3,
        "save_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **settings,
    }
    rows = Dataset.from_list([{"prompt": text} for text in ("the cat", "snow", "we go home now .", "a big dog")])
    args = Seq2SeqPPOConfig(output_dir=str(folder), **settings)
    trainer = Seq2SeqPPOTrainer(model, reward or Centred(), args, train_dataset=rows, eval_dataset=rows)
    for drawing in (TrainingCurvesCallback, ModelCardCallback):  # takes longer than the training here
        trainer.remove_callback(drawing)
    return trainer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """The output folder of a run with checkpoints 1 to 3; to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    make_trainer(model, folder).train()
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def remove(path):
    path.unlink()


DAMAGES = {
    "no host state": ("trainer_state.json", remove, r"trainer_state\.json is missing"),
    "cut host state": ("trainer_state.json", cut, r"trainer_state\.json has \d+ bytes instead of \d+"),
    "changed host state": ("trainer_state.json", flip, r"trainer_state\.json is not what was saved"),
    "changed config": ("config.json", flip, r"config\.json is not what was saved"),
    "changed list": ("ppo_state.json", flip, r"ppo_state\.json, which is written last, .*"),
    "cut tensors": ("model.safetensors", cut, r"model\.safetensors has \d+ bytes instead of \d+"),
    "changed tensors": ("value_head.safetensors", flip, r"value_head\.safetensors is not what was saved"),
    "no optimizer": ("optimizer.pt", remove, r"optimizer\.pt is missing"),
    "cut random state": ("rng_state.pth", cut, r"rng_state\.pth has \d+ bytes"),
    "no list": ("ppo_state.json", remove, r"ppo_state\.json, which is written last, is missing"),
    "cut list": ("ppo_state.json", cut, r"ppo_state\.json, which is written last, .*JSONDecodeError"),
}


@pytest.mark.parametrize(("name", "harm", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(folder, caplog, name, harm, words):
    harm(folder / "checkpoint-3" / name)
    assert find_checkpoint(folder, True).name == "checkpoint-2"
    assert len(caplog.records) == 1
    assert "checkpoint-3 is damaged and was skipped" in caplog.text
    with pytest.raises(InputError, match=words) as refused:
        find_checkpoint(folder, folder / "checkpoint-3")
    assert "checkpoint-3" in refused.value.found
    assert "checkpoint-1, checkpoint-2" in refused.value.next_step


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one_and_ends_the_same(model, folder, finished, caplog):
    cut(folder / "checkpoint-3" / "optimizer.pt")
    resumed = make_trainer(model, folder)
    resumed.train(resume_from_checkpoint=True)
    assert "checkpoint-3 is damaged" in caplog.text
    assert damage(folder / "checkpoint-3") is None  # written anew
    for name in ("model.safetensors", "value_head.safetensors"):
        assert (folder / "checkpoint-3" / name).read_bytes() == (finished / "checkpoint-3" / name).read_bytes()
    assert not (folder / UNFINISHED).exists()


def test_nothing_whole_to_resume_from_is_an_error_that_says_what_there_is(model, folder, tmp_path):
    with pytest.raises(InputError, match="none in"):
        make_trainer(model, tmp_path / "empty").train(resume_from_checkpoint=True)
    for number in (1, 2, 3):
        remove(folder / f"checkpoint-{number}" / "trainer_state.json")
    with pytest.raises(InputError, match=r"checkpoint-3: trainer_state\.json is missing; checkpoint-2"):
        make_trainer(model, folder).train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match="no such folder"):
        make_trainer(model, folder).train(resume_from_checkpoint=str(tmp_path / "nowhere"))


def test_a_checkpoint_without_the_optimizer_cannot_be_resumed_from(model, tmp_path):
    make_trainer(model, tmp_path, save_only_model=True, max_steps=1).train()
    with pytest.raises(InputError, match="save_only_model"):
        make_trainer(model, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_another_models_checkpoint_is_refused(folder, tmp_path):
    other = make_trainer(tiny_bart(tmp_path / "bart"), tmp_path / "other")
    with pytest.raises(InputError, match="resume with the model that the run began with"):
        other.train(resume_from_checkpoint=str(folder / "checkpoint-3"))


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path):
    save_file({"weight": torch.zeros(1, 4), "extra": torch.zeros(2)}, tmp_path / "value_head.safetensors")
    with pytest.raises(InputError) as caught:
        restore_weights(torch.nn.Linear(3, 1), tmp_path)
    shapes = "bias missing, here [1]; extra [2], here missing; weight [1, 4], here [1, 3]"
    assert caught.value.found == f"{tmp_path} with {shapes}"


def test_a_run_that_had_finished_is_not_trained_further(model, folder):
    trainer = make_trainer(model, folder)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3
    assert [path.name for path in checkpoints(folder)][-1] == "checkpoint-3"
    longer = make_trainer(model, folder, max_steps=4)
    longer.train(resume_from_checkpoint=True)
    assert longer.state.global_step == 4


def test_leftovers_of_a_killed_save_are_removed_at_the_next_start(model, folder):
    shutil.copytree(folder / "checkpoint-3", folder / UNFINISHED / "checkpoint-4")
    make_trainer(model, folder).train(resume_from_checkpoint=True)
    left = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert left == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_a_fresh_start_beside_an_earlier_runs_checkpoints_is_told(model, folder, caplog):
    make_trainer(model, folder, max_steps=1).train()
    assert "holds checkpoint-3 of an earlier run" in caplog.text


def test_a_fresh_run_in_the_folder_of_a_longer_one_is_the_one_that_is_kept_and_resumed(model, folder):
    """The earlier run's steps are higher: what counts is what was saved last."""
    fresh = make_trainer(model, folder, max_steps=2, seed=5, save_total_limit=2)
    fresh.train()
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-1", "checkpoint-2"]
    assert find_checkpoint(folder, True).name == "checkpoint-2"


def test_a_run_that_went_on_from_an_earlier_step_is_resumed_where_it_was_and_not_where_it_had_once_been(model, folder):
    branch = make_trainer(model, folder, max_steps=2, learning_rate=1e-2)
    branch.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-1", "checkpoint-3", "checkpoint-2"]
    assert find_checkpoint(folder, True).name == "checkpoint-2"


def test_a_kill_between_the_two_renames_of_a_save_loses_no_checkpoint(model, folder, monkeypatch):
    renames = []
    rename = Path.rename

    def killed_at_the_second(path, target):
        renames.append(path)
        if len(renames) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    trainer = make_trainer(model, folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert [path.name for path in renames] == ["checkpoint-3"] * 2
    assert resumed_run(folder, True) == folder
    assert not (folder / "checkpoint-3").exists()
    assert find_checkpoint(folder, True).name == "checkpoint-3"
    assert damage(folder / "checkpoint-3") is None
    rename(folder / "checkpoint-3", folder / UNFINISHED / "replaced-checkpoint-3")
    make_trainer(model, folder, max_steps=1).train()
    assert (folder / "checkpoint-3").is_dir()
    assert not (folder / UNFINISHED).exists()


@pytest.mark.parametrize(("limit", "left"), [(None, [1, 2, 3, 4]), (0, [1, 2, 3, 4]), (2, [3, 4]), (1, [4])])
def test_the_oldest_checkpoints_are_removed(model, tmp_path, limit, left):
    make_trainer(model, tmp_path, max_steps=4, save_total_limit=limit).train()
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{number}" for number in left]
    assert not (tmp_path / UNFINISHED).exists()


def test_the_best_checkpoint_is_kept_and_known_by_its_final_name(model, tmp_path, monkeypatch):
    trainer = make_trainer(
        model,
        tmp_path,
        max_steps=4,
        save_total_limit=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_reward",
        greater_is_better=True,
    )
    ranking = iter([0.0, 3.0, 2.0, 1.0])
    monkeypatch.setattr(trainer_module, "held_out_metrics", lambda answers: {"reward": next(ranking)})
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert (tmp_path / "checkpoint-2").is_dir()
    saved = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == str(tmp_path / "checkpoint-2")


def test_a_checkpoint_is_pushed_once_it_has_its_name(model, tmp_path, monkeypatch):
    pushed = []
    push = "trl_rewards_plugin.ppo.checkpoints.restartable_trainer.push_checkpoint"
    monkeypatch.setattr(push, lambda trainer, folder: pushed.append((folder, damage(Path(folder)))))
    trainer = make_trainer(model, tmp_path, max_steps=1)
    trainer.args.push_to_hub = True
    monkeypatch.setattr(trainer, "push_to_hub", lambda *args, **kwargs: None)
    trainer.train()
    assert pushed == [(str(tmp_path / "checkpoint-1"), None)]


def test_a_rewards_running_state_comes_back(model, folder, finished):
    reward = Centred()
    make_trainer(model, folder, reward).train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert reward.count == 6
    saved = json.loads((finished / "checkpoint-3" / "ppo_state.json").read_text())
    assert saved["rewards"] == [{"centred": reward.state_dict()}]


def test_an_evaluation_leaves_a_rewards_running_state_as_it_was(model, tmp_path):
    reward = Centred()
    trainer = make_trainer(model, tmp_path, reward)
    trainer.evaluate()
    assert reward.state_dict() == {"count": 0, "mean": 0.0}
    trainer.train()
    before = reward.state_dict()
    assert before["count"] == 6
    trainer.evaluate()
    assert reward.state_dict() == before


def test_the_counters_of_an_earlier_version_are_read_without_what_it_did_not_save(tmp_path):
    counters = {"kl_coef": 0.1, "episodes": 8, "epoch_scores": [1.5, 8], "seconds": 2.0, "alarms": {}}
    saved = {**counters, "metrics": [{}], "rewards": [{}]}
    (tmp_path / "ppo_state.json").write_text(json.dumps(saved))
    state = load_run_state(tmp_path)
    assert (state.episodes, state.total_loss, state.evaluation_rewards) == (8, None, None)


def test_every_evaluation_begins_with_the_state_that_a_reward_had_at_the_first():
    reward, kept = Centred(), {}
    for count in (3, 5):
        reward.load_state_dict({"count": count, "mean": 0.5})
        with frozen_rewards([reward], kept):
            assert reward.count == 3
            reward(["a text"])
        assert reward.count == count
    assert kept == {"centred": {"count": 3, "mean": 0.5}}


def test_a_reward_that_fails_in_an_evaluation_gets_its_state_back_too():
    reward = Centred()
    block = frozen_rewards([reward, length], {})
    block.__enter__()
    reward(["a text"])
    assert not block.__exit__(OSError, OSError("judge gone"), None)
    assert reward.count == 0


def test_a_running_z_score_is_frozen_in_an_evaluation_which_so_repeats_itself_and_changes_no_training(model, tmp_path):
    ends = []
    for settings in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        reward = MultiClassifierReward([length], normalization="zscore")
        trainer = make_trainer(model, tmp_path / str(len(ends)), reward, save_strategy="no", **settings)
        trainer.train()
        state = reward.state_dict()
        first, second = (trainer.evaluate()["eval_reward"] for _ in range(2))
        assert first == second
        assert reward.state_dict()["statistics"] == state["statistics"]
        ends.append((state, {name: value.clone() for name, value in trainer.model.state_dict().items()}))
    (state, weights), (evaluated_state, evaluated_weights) = ends
    assert state["statistics"] == evaluated_state["statistics"]
    assert all(torch.equal(value, evaluated_weights[name]) for name, value in weights.items())


def test_what_was_measured_since_the_last_log_and_how_often_alarms_rang_goes_on_too(model, tmp_path, caplog):
    settings = {"logging_steps": 3, "min_entropy": 100.0}
    straight = make_trainer(model, tmp_path, **settings)
    straight.train()
    caplog.clear()
    resumed = make_trainer(model, tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    (expected,), (found,) = (
        [row for row in trainer.state.log_history if "objective/kl" in row] for trainer in (straight, resumed)
    )
    own = {name for name in expected if "/" in name}
    assert {name: found[name] for name in own} == {name: expected[name] for name in own}
    assert resumed.run_log.alarms.times["entropy"] == straight.run_log.alarms.times["entropy"] == 3
    assert "the entropy is" not in caplog.text  # it was said at the first rollout


def test_rewards_that_are_not_the_runs_own_are_refused(model, folder):
    with pytest.raises(InputError, match=r"the rewards whose state the checkpoint holds: \['centred'\]"):
        make_trainer(model, folder, length).train(resume_from_checkpoint=True)


def test_a_reward_state_that_is_not_plain_is_refused_before_training(model, tmp_path):
    reward = Centred()
    reward.mean = torch.zeros(())
    with pytest.raises(InputError, match=r"reward 'centred'.*Tensor"):
        make_trainer(model, tmp_path, reward).train()


def test_launched_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="use_cpu=True"):
        check_launch(1)
    check_launch(2)


def test_the_first_fsdp_is_refused():
    plugin = SimpleNamespace(fsdp_version=1)
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, state=SimpleNamespace(fsdp_plugin=plugin))
    with pytest.raises(InputError, match="fsdp_version: 2"):
        check_sharding(accelerator)
    plugin.fsdp_version = 2
    check_sharding(accelerator)


def test_another_number_of_processes_is_told(model, folder, caplog):
    path = folder / "checkpoint-2" / "ppo_state.json"
    state = json.loads(path.read_text())
    state["rewards"] = state["rewards"] * 2
    for later in ("checksum", "fingerprint", "total_loss", "evaluation_rewards"):  # as earlier versions wrote it
        state.pop(later, None)
    path.write_text(json.dumps(state))
    with caplog.at_level(logging.WARNING):
        make_trainer(model, folder).train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert "was saved by 2 processes and is resumed by 1" in caplog.text


def test_a_kill_before_the_oldest_checkpoints_were_removed_leaves_none_too_many(model, tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(restart.folders, "rotate", lambda *arguments, **keep: None)
        make_trainer(model, tmp_path, save_steps=1, save_total_limit=2).train()
    assert len(checkpoints(tmp_path)) == 3
    make_trainer(model, tmp_path, save_steps=1, save_total_limit=2).train(resume_from_checkpoint=True)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize("tied", [False, True])
def test_an_untied_t5_says_so_to_transformers_4_and_still_reads_as_it_was(tmp_path, tied):
    """Version 4 believes `tie_word_embeddings`; version 5 writes true whatever the tensors are."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**sizes, tie_word_embeddings=tied, decoder_start_token_id=0)).eval()
    if not tied:
        model.lm_head = torch.nn.Linear(8, 20, bias=False)
    model.save_pretrained(tmp_path)
    mark_untied_embeddings(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is tied
    reloaded = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    inputs = {"input_ids": torch.tensor([[3, 4, 1]]), "decoder_input_ids": torch.tensor([[0, 5]])}
    with torch.no_grad():
        torch.testing.assert_close(reloaded(**inputs).logits, model(**inputs).logits)
    same = reloaded.lm_head.weight.data_ptr() == reloaded.shared.weight.data_ptr()
    assert same is tied
