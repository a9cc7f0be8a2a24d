"""Estimators, critics and frozen parts through the trainer, on tiny random T5 and BART."""

import dataclasses

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.policy.load_policy import freeze
from trl_rewards_plugin.ppo.policy.sampling import encode_prompts
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

PROMPTS = ["the cat", "a big dog eats old fish near the river .", "snow", "she reads a long book"]
GROUPED = {"num_generations": 4}


def vowels(completions, **kwargs):
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def make_trainer(model, folder, reward=vowels, *, value_model=None, **settings):
    settings = {
        "per_device_train_batch_size": 8,
        "response_length": 6,
        "learning_rate": 1e-3,
        "max_steps": 2,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        **settings,
    }
    args = Seq2SeqPPOConfig(output_dir=str(folder), **settings)
    data = Dataset.from_list([{"prompt": PROMPTS[row % 4], "row": row} for row in range(16)])
    return Seq2SeqPPOTrainer(model, reward, args, train_dataset=data, value_model=value_model)


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def changed(trainer, before):
    return {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize(
    "settings",
    [
        {"advantage_estimator": "reinforce"},
        {"advantage_estimator": "rloo", **GROUPED},
        {"advantage_estimator": "grpo", "use_kl_loss": True, "kl_estimator": "k3", **GROUPED},
    ],
    ids=lambda settings: settings["advantage_estimator"],
)
def test_without_a_critic_there_is_no_value_head_and_the_policy_learns(folders, tmp_path, family, settings):
    trainer = make_trainer(folders[family], tmp_path, save_strategy="steps", save_steps=2, **settings)
    before = weights(trainer)
    trainer.train()
    assert not any("value" in name for name in before)
    assert changed(trainer, before)
    log = trainer.state.log_history[0]
    assert "loss/value_avg" not in log
    assert ("loss/kl_avg" in log) == settings.get("use_kl_loss", False)
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint-2")


def test_every_prompt_gets_its_responses_side_by_side_with_its_columns(folders, tmp_path):
    seen = []

    def reward(completions, prompts, row, **kwargs):
        seen.append((prompts, row))
        return vowels(completions)

    trainer = make_trainer(folders["t5"], tmp_path, reward, advantage_estimator="rloo", **GROUPED)
    trainer.train()
    assert len(seen) == 2
    for prompts, row in seen:
        assert len(prompts) == 8
        assert row == [row[0]] * 4 + [row[4]] * 4
        assert row[0] != row[4]
        assert prompts == [PROMPTS[number % 4] for number in row]
    assert trainer.episodes == 16


def lengths(completions, **kwargs):
    return [float(len(text)) for text in completions]


def test_every_reward_reaches_the_advantages_by_itself(folders, tmp_path):
    trainer = make_trainer(
        folders["t5"],
        tmp_path,
        [vowels, lengths],
        advantage_estimator="grpo",
        multi_objective_aggregation="normalize_then_sum",
        gradient_accumulation_steps=2,
        response_length=1,
        max_steps=1,
        **GROUPED,
    )
    rollouts, update = [], trainer.update
    trainer.update = lambda rollout, model: rollouts.append(rollout) or update(rollout, model)
    trainer.train()
    (rollout,) = rollouts
    assert rollout.reward_scores.shape == (16, 2)
    assert rollout.response_ids.shape == (16, 1)
    torch.testing.assert_close(rollout.reward_scores.sum(1), rollout.scores)
    assert "frac_reward_zero_std" in trainer.state.log_history[0]
    with pytest.raises(InputError, match="one score per response"):
        trainer.step([torch.tensor([5, 1])], [torch.tensor([5, 1])], [0.0])


def update_of(trainer, keep):
    """Statistics and gradients of an update on the kept rows of a rollout of four, of which the last two never end."""
    trainer.create_optimizer_and_scheduler(2)
    trainer.optimizer = trainer.accelerator.prepare(trainer.optimizer)
    torch.manual_seed(1)
    rows = [trainer.train_dataset[row] for row in range(4)]
    rollout = trainer.collect(trainer.data_collator(rows))
    mask = torch.arange(rollout.response_ids.shape[1]) < torch.tensor([[1], [3], [2], [6]])
    ended = torch.tensor([True, True, False, False])
    rollout = dataclasses.replace(rollout, response_mask=mask, ended=ended, scores=torch.tensor([1.0, -1.0, 5.0, 0.0]))
    if keep < 4:
        rollout = type(rollout)(**{name: value[:keep] for name, value in rollout.tensors().items()})
    stats = trainer.update(rollout, trainer.model)
    return stats, {name: value.grad for name, value in trainer.model.named_parameters() if value.grad is not None}


ONE_UPDATE = {
    "per_device_train_batch_size": 4,
    "num_ppo_epochs": 1,
    "num_mini_batches": 1,
    "advantage_estimator": "reinforce",
    "whiten_advantages": False,
    "kl_coef": 0.0,
}


def test_truncated_responses_teach_nothing(folders, tmp_path):
    """Masked, they leave the update of the other two, token count included."""
    found = []
    for masked, keep in ((True, 4), (False, 2)):
        trainer = make_trainer(folders["t5"], tmp_path, mask_truncated_completions=masked, **ONE_UPDATE)
        found.append(update_of(trainer, keep))
    (stats, gradients), (expected, wanted) = found
    assert stats["loss/policy_avg"] == pytest.approx(expected["loss/policy_avg"])
    assert stats["loss/policy_avg"] == pytest.approx(-(1.0 - 3.0) / 4)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_a_rollout_that_is_truncated_as_a_whole_changes_nothing_but_by_momentum(folders, tmp_path):
    trainer = make_trainer(
        folders["t5"], tmp_path, mask_truncated_completions=True, **{**ONE_UPDATE, "response_length": 1}
    )
    trainer.args.min_new_tokens = 1
    trainer.rules = dataclasses.replace(trainer.rules, min_new_tokens=1)
    before = weights(trainer)
    trainer.train()
    assert not changed(trainer, before)


@pytest.mark.parametrize(
    ("loss_type", "expected"), [("dapo", -(1.0 - 3.0 + 10.0) / 12), ("grpo", -(1.0 - 1.0 + 5.0 + 0.0) / 4)]
)
@pytest.mark.parametrize("micro_batch", [4, 2])
def test_the_loss_is_a_mean_over_tokens_or_over_responses(folders, tmp_path, loss_type, expected, micro_batch):
    """Advantages 1, -1, 5 and 0 on 1, 3, 2 and 6 tokens; TRL's "grpo" is the mean of -1, 1, -5 and 0."""
    settings = {**ONE_UPDATE, "per_device_train_batch_size": 4, "loss_type": loss_type}
    trainer = make_trainer(folders["t5"], tmp_path, **settings)
    trainer.args.per_device_train_batch_size = micro_batch  # of the update
    stats, _ = update_of(trainer, 4)
    assert stats["loss/policy_avg"] == pytest.approx(expected)
    assert stats["loss/total_avg"] == pytest.approx(expected)


def test_an_epoch_counts_every_response(folders, tmp_path):
    trainer = make_trainer(
        folders["t5"], tmp_path, max_steps=-1, num_train_epochs=1, advantage_estimator="rloo", **GROUPED
    )
    assert trainer.args.max_steps == 16 * 4 // 8


def test_a_detached_head_leaves_the_policy_to_the_policy_loss(folders, tmp_path):
    """With advantages of 0 only the value loss is left, and it must not reach the policy."""

    def nothing(completions, **kwargs):
        return [1.0] * len(completions)

    settings = {"whiten_advantages": False, "kl_coef": 0.0, "lam": 0.0, "max_steps": 1, "num_ppo_epochs": 1}
    found = {}
    for detached in (True, False):
        trainer = make_trainer(folders["t5"], tmp_path, nothing, detach_value_head=detached, vf_coef=1.0, **settings)
        with torch.no_grad():  # a head of 0 hands no gradient on
            trainer.model.value_head.weight.fill_(0.1)
        rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
        output = trainer.model(rollout.prompts, rollout.response_ids, trainer.rules)
        output.values.sum().backward()
        found[detached] = {name for name, value in trainer.model.named_parameters() if value.grad is not None}
    assert found[True] == {"value_head.weight", "value_head.bias"}
    assert len(found[False]) > 10


def test_critic_warm_up_moves_the_critic_alone_and_then_both(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, max_steps=1, critic_warmup_steps=1)
    before = weights(trainer)
    trainer.train()
    assert changed(trainer, before) == {"value_head.weight", "value_head.bias"}
    trainer = make_trainer(folders["t5"], tmp_path, max_steps=2, critic_warmup_steps=1)
    before = weights(trainer)
    trainer.train()
    assert len(changed(trainer, before)) > 10


def test_a_value_model_of_its_own_learns_is_kept_in_checkpoints_and_resumes(folders, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    straight = make_trainer(folders["t5"], tmp_path / "a", value_model=folders["bart"], **settings)
    before = weights(straight)
    straight.train()
    moved = changed(straight, before)
    assert any(name.startswith("value_model.") for name in moved)
    assert any(name.startswith("policy.") for name in moved)
    checkpoint = tmp_path / "a" / "checkpoint-1"
    assert any(name.startswith("value_model.") for name in load_file(checkpoint / "value_head.safetensors"))
    resumed = make_trainer(folders["t5"], tmp_path / "b", value_model=folders["bart"], **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, value in straight.model.named_parameters():
        assert torch.equal(value, resumed.model.get_parameter(name)), name


def test_a_value_model_must_be_another_model_of_as_many_tokens(folders, tmp_path):
    policy = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    with pytest.raises(InputError, match="the policy itself"):
        make_trainer(policy, tmp_path, value_model=policy)
    small = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    small.resize_token_embeddings(8)
    with pytest.raises(InputError, match="of 8 tokens"):
        make_trainer(policy, tmp_path, value_model=small)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_frozen_encoder_is_computed_once_a_rollout_and_changes_nothing_else(folders, tmp_path, family):
    trainer = make_trainer(folders[family], tmp_path, freeze_encoder=True, max_steps=1)
    before = weights(trainer)
    encoder = trainer.policy_model.get_encoder()
    calls = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    reference_calls = []
    trainer.ref_model.get_encoder().register_forward_hook(lambda *_: reference_calls.append(1))
    trainer.train()
    assert (len(calls), len(reference_calls)) == (1, 0)
    frozen = {id(parameter) for parameter in encoder.parameters()}
    moved = changed(trainer, before)
    assert moved
    assert not any(id(trainer.model.get_parameter(name)) in frozen for name in moved)
    log = trainer.state.log_history[0]
    assert abs(log["objective/kl"]) < 1e-4
    assert log["val/ratio_first"] == pytest.approx(1.0, abs=1e-4)
    assert log["val/sampling_gap"] < 1e-4


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_kept_encoder_states_teach_what_computed_ones_teach(folders, tmp_path, family):
    """The same rollout, with and without its encoder states: the same update."""
    after = []
    for kept in (True, False):
        # One epoch: transformers' encoder may draw numbers of its own, and each epoch is shuffled by the next ones.
        trainer = make_trainer(folders[family], tmp_path, freeze_encoder=True, num_ppo_epochs=1)
        trainer.create_optimizer_and_scheduler(2)
        trainer.optimizer = trainer.accelerator.prepare(trainer.optimizer)
        torch.manual_seed(1)
        rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
        assert torch.allclose(
            rollout.encoder_states[rollout.prompt_mask],
            encode_prompts(trainer.policy_model, rollout.prompts).states[rollout.prompt_mask],
            atol=1e-6,
        )
        if not kept:
            rollout = type(rollout)(**{**rollout.__dict__, "encoder_states": None})
        torch.manual_seed(2)
        trainer.update(rollout, trainer.model)
        after.append({name: value.grad for name, value in trainer.model.named_parameters() if value.requires_grad})
    for name, grad in after[0].items():
        torch.testing.assert_close(grad, after[1][name], atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_only_the_top_layers_are_left_unfrozen(folders, tmp_path, family):
    trainer = make_trainer(folders[family], tmp_path, num_layers_unfrozen=1, max_steps=1)
    before = weights(trainer)
    trainer.train()
    moved = {name for name in changed(trainer, before) if name.startswith("policy.")}
    last = "decoder.block.1." if family == "t5" else "decoder.layers.1."
    assert any(last in name for name in moved)
    assert all(last in name or "decoder.final_layer_norm" in name or "lm_head" in name for name in moved)


def test_more_layers_than_there_are_and_nothing_left_to_train_are_refused(folders):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["bart"])  # two layers; output matrix tied to the input's
    with pytest.raises(InputError, match="at most 2"):
        freeze(model, encoder=False, num_layers_unfrozen=3)
    with pytest.raises(InputError, match="something left to train"):
        freeze(model, encoder=False, num_layers_unfrozen=0)
