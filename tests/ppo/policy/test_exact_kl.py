"""`kl_estimator="full"` through the trainer, on tiny random models: what is recorded, and what the loss teaches."""

import copy

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForSeq2SeqLM

from tests.ppo.test_trainer import LORA_TARGETS, make_trainer
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.policy.exact_kl import ExactKL
from trl_rewards_plugin.ppo.policy.output_head import Anchor
from trl_rewards_plugin.ppo.policy.policy import teacher_forced
from trl_rewards_plugin.ppo.update import compute_advantages, compute_token_rewards

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

SETTINGS = {"temperature": 0.7, "min_new_tokens": 2, "kl_coef": 0.5, "num_mini_batches": 1, "num_ppo_epochs": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def ready(folders, tmp_path, family="t5", **settings):
    """A trainer whose policy has moved away from its reference, and a rollout."""
    trainer = make_trainer(str(folders[family]), tmp_path, **{**SETTINGS, **settings})
    trainer.create_optimizer_and_scheduler(2)
    trainer.optimizer = trainer.accelerator.prepare(trainer.optimizer)
    move(trainer)
    torch.manual_seed(2)
    rows = [trainer.train_dataset[row] for row in range(trainer.args.per_device_train_batch_size)]
    rows = rows[: len(rows) // trainer.args.num_generations]
    return trainer, trainer.collect(trainer.data_collator(rows))


def move(trainer):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.policy_model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def gradients_of(trainer, rollout):
    torch.manual_seed(4)
    trainer.model.zero_grad()
    stats = trainer.update(rollout, trainer.model)
    return stats, {name: value.grad for name, value in trainer.model.named_parameters() if value.grad is not None}


def log_distributions(model, rollout, rules):
    return teacher_forced(model, rollout.prompts, rollout.response_ids, rules)[0].log_softmax(-1)


def counted_kl(left, right):
    """Over the vocabulary, by its definition: (B, T, V) twice -> (B, T)."""
    left, right = (logs.masked_fill(logs == -torch.inf, 0.0) for logs in (left, right))
    return (left.exp() * (left - right)).sum(-1)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_rollout_records_the_kl_of_every_distribution_to_the_reference(folders, tmp_path, family):
    trainer, rollout = ready(folders, tmp_path, family, kl_estimator="full")
    logs, ref_logs = (
        log_distributions(model, rollout, trainer.rules) for model in (trainer.policy_model, trainer.ref_model)
    )
    expected, mask = counted_kl(logs, ref_logs), rollout.response_mask
    assert expected[mask].min() > 1e-3
    torch.testing.assert_close(rollout.exact_kl[mask], expected[mask], atol=1e-5, rtol=1e-4)
    stats, _ = gradients_of(trainer, rollout)
    assert stats["objective/kl"] == pytest.approx(expected.where(mask, 0).sum(1).mean().item(), rel=1e-4)


@pytest.mark.parametrize("estimator", ["gae", "rloo", "grpo", "reinforce"])
def test_before_the_policy_moves_the_gradient_is_k1_s(folders, tmp_path, estimator):
    """KL(policy || policy that drew) is 0 there, and so is its gradient, whatever it is multiplied by."""
    generations = 2 if estimator in ("rloo", "grpo") else 1
    settings = {"advantage_estimator": estimator, "num_generations": generations}
    found = []
    for kl_estimator in ("k1", "full"):
        trainer, rollout = ready(folders, tmp_path, kl_estimator=kl_estimator, **settings)
        found.append(gradients_of(trainer, rollout))
    assert found[1][0]["loss/kl_avg"] == pytest.approx(0.0, abs=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("in_loss", [False, True])
def test_the_loss_holds_the_counted_kl_and_its_gradient(folders, tmp_path, in_loss):
    """Equal scores and no critic leave nothing but the KL, once the policy has moved from its rollout."""
    settings = {"advantage_estimator": "rloo", "num_generations": 2, "use_kl_loss": in_loss}
    trainer, rollout = ready(folders, tmp_path, kl_estimator="full", **settings)
    old = trainer.ref_model if in_loss else copy.deepcopy(trainer.policy_model)
    mask, model = rollout.response_mask, trainer.policy_model
    with torch.no_grad():
        anchor = log_distributions(old, rollout, trainer.rules)
    trainer.exact_kl.keep()
    move(trainer)  # within an update; `update` would take this for the policy that drew
    head = Anchor(trainer.exact_kl.anchor, rollout.anchor_features)
    expected = counted_kl(log_distributions(model, rollout, trainer.rules), anchor)[mask].sum()
    expected.backward()
    wanted = {name: value.grad.clone() for name, value in trainer.model.named_parameters() if value.grad is not None}
    trainer.model.zero_grad()
    found = trainer.model(rollout.prompts, rollout.response_ids, trainer.rules, anchor=head).kl[mask].sum()
    found.backward()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for name, gradient in wanted.items():
        torch.testing.assert_close(trainer.model.get_parameter(name).grad, gradient, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("estimator", ["gae", "rloo", "grpo", "reinforce"])
def test_the_penalty_has_the_unit_that_rewards_have_in_the_advantages(folders, tmp_path, estimator):
    """Rewards of double size make advantages of equal size where these are scaled; then the penalty is halved."""
    generations = 2 if estimator in ("rloo", "grpo") else 1
    trainer, rollout = ready(
        folders, tmp_path, kl_estimator="full", advantage_estimator=estimator, num_generations=generations
    )
    scales = []
    for factor in (1.0, 2.0):
        _, rewards = compute_token_rewards(rollout, trainer.args, 0.5)
        batch = compute_advantages(rollout, factor * rewards, trainer.args)
        assert len(set(batch.reward_scale.tolist())) == (2 if estimator == "grpo" else 1)  # grpo: one a group
        scales.append(batch.reward_scale)
    torch.testing.assert_close(scales[1], scales[0] if estimator == "rloo" else scales[0] / 2, rtol=1e-2, atol=0.0)
    if estimator == "rloo":
        torch.testing.assert_close(scales[0], torch.ones(len(scales[0])))


def test_the_plain_adapter_s_reference_is_the_policy_without_it(folders, tmp_path):
    peft_config = LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=2, target_modules=LORA_TARGETS["t5"], init_lora_weights="gaussian"
    )
    trainer = make_trainer(str(folders["t5"]), tmp_path, peft_config=peft_config, kl_estimator="full", **SETTINGS)
    assert trainer.ref_model is None
    with torch.no_grad():
        for name, parameter in trainer.policy_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
    core = trainer.policy_model.get_base_model()
    logs = log_distributions(core, rollout, trainer.rules)
    with trainer.policy_model.disable_adapter():
        ref_logs = log_distributions(core, rollout, trainer.rules)
    mask = rollout.response_mask
    torch.testing.assert_close(rollout.exact_kl[mask], counted_kl(logs, ref_logs)[mask], atol=1e-5, rtol=1e-3)
    assert rollout.exact_kl[mask].max() > 1e-3


def test_what_cannot_be_counted_out_is_refused(folders, tmp_path):
    other = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    other.resize_token_embeddings(200)
    trainer = make_trainer(str(folders["t5"]), tmp_path)
    with pytest.raises(InputError, match=r"(?s)one vocabulary.*T5ForConditionalGeneration, .*200.* tokens"):
        ExactKL(trainer.model.core, other, trainer.rules, trainer.args)
    trainer.args.fsdp = True
    with pytest.raises(InputError, match="T5ForConditionalGeneration sharded, 146 tokens"):
        ExactKL(trainer.model.core, trainer.ref_model, trainer.rules, trainer.args)
