"""Objectives that rank a prompt's responses, through the trainer; DPO's numbers are those of TRL 0.28."""

import json
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration

from tests.ppo.test_trainer import make_trainer, rollout_rows
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.maths.masking import masked_sum
from trl_rewards_plugin.ppo.maths.objectives import preference_loss
from trl_rewards_plugin.ppo.policy.policy import PolicyOutput, score_responses
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.rollout import Rollout
from trl_rewards_plugin.ppo.update import (
    _learnt_together,
    _mini_batches,
    compute_advantages,
    compute_token_rewards,
    ppo_losses,
)

TRL = json.loads((Path(__file__).parent / "dpo_trl_0_28.json").read_text(encoding="utf-8"))
GROUPS = {"num_generations": 4, "per_device_train_batch_size": 8, "total_episodes": 32, "max_unended_share": None}
RANKED = [{"objective": "raft"}, {"objective": "dpo"}, {"objective": "dpo", "dpo_labels": "hard"}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def config(**settings):
    return Seq2SeqPPOConfig(output_dir="unused", report_to="none", **settings)


def padded(rows):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) < lengths.unsqueeze(1)


@pytest.fixture(scope="module")
def stored():
    """The batch of the fixture as a rollout: chosen and rejected side by side, the rejected one first in each second
    pair; and the policy's output for it."""
    policy, reference = (T5ForConditionalGeneration.from_pretrained(asset_path("tiny-t5")).eval() for _ in range(2))
    with torch.no_grad():
        for weight in reference.parameters():
            weight.mul_(TRL["reference_scale"])
    rows, scores = [], []
    for number, row in enumerate(TRL["rows"]):
        pair = [("chosen_input_ids", 1.0), ("rejected_input_ids", 0.0)]
        for name, score in pair if number % 2 == 0 else pair[::-1]:
            rows.append((row["prompt_input_ids"], row[name]))
            scores.append(score)
    (prompt_ids, prompt_mask), (ids, mask) = padded([row[0] for row in rows]), padded([row[1] for row in rows])
    prompts, everything = EncodedPrompts(prompt_ids, prompt_mask), TokenRules(0, (1,), pad_id=1)  # pad is allowed too
    with torch.no_grad():
        (logprobs, entropies, _), (ref_logprobs, _, _) = (
            score_responses(model, prompts, ids, everything)[0] for model in (policy, reference)
        )
    rollout = Rollout(
        prompt_ids=prompt_ids, prompt_mask=prompt_mask, response_ids=ids, response_mask=mask,
        ended=torch.ones(len(ids), dtype=torch.bool), sampled_logprobs=logprobs, logprobs=logprobs,
        ref_logprobs=ref_logprobs, entropies=entropies, values=torch.zeros_like(logprobs),
        scores=torch.tensor(scores),
    )  # fmt: skip
    return rollout, PolicyOutput(logprobs, entropies, torch.zeros_like(logprobs))


def pair_sums(rollout, logprobs):
    """(P, 2) summed log-probabilities of the chosen and the rejected."""
    sums = torch.where(rollout.response_mask, logprobs, 0.0).sum(1)
    return torch.stack([sums[rollout.scores == 1.0], sums[rollout.scores == 0.0]], dim=1)


def test_the_log_probabilities_are_those_of_trl_0_28(stored):
    rollout, output = stored
    theirs = TRL["label_smoothing=0.0"]["padded"]
    for logprobs, prefix in ((output.logprobs, ""), (rollout.ref_logprobs, "ref_")):
        expected = torch.tensor([theirs[f"{prefix}chosen_logps"], theirs[f"{prefix}rejected_logps"]]).T
        torch.testing.assert_close(pair_sums(rollout, logprobs), expected, rtol=2e-6, atol=1e-5)


def test_the_loss_is_that_of_trl_0_28(stored):
    rollout, output = stored
    theirs = TRL["label_smoothing=0.0"]["padded"]
    args = config(
        objective="dpo", dpo_labels="hard", beta=TRL["beta"], num_generations=2, per_device_train_batch_size=8
    )
    batch = compute_advantages(rollout, compute_token_rewards(rollout, args, 0.0)[1], args)
    assert batch.advantages[:, 0].tolist() == [1, -1, -1, 1, 1, -1, -1, 1]
    tokens = rollout.response_mask.sum()
    found = ppo_losses(output, batch, torch.tensor(0.0), args, tokens / len(rollout))
    assert (found["loss/total_avg"] / tokens).item() == pytest.approx(theirs["loss"], abs=1e-5)
    for name, value in theirs["logged"].items():
        assert (found[name] / tokens).item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_the_loss_of_each_pair_is_that_of_trl_0_28_with_and_without_label_smoothing(stored, smoothing):
    rollout, output = stored
    ratios = pair_sums(rollout, output.logprobs - rollout.ref_logprobs)
    margins = TRL["beta"] * (ratios[:, 0] - ratios[:, 1])
    gap = torch.logit(torch.tensor(1 - smoothing, dtype=torch.float64)).float()  # infinite without smoothing
    found = preference_loss(margins, gap.expand(4), "bradley_terry" if smoothing else "hard")
    expected = torch.tensor(TRL[f"label_smoothing={smoothing}"]["padded"]["losses"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_trl_0_28_leaves_out_the_last_token_of_a_batch_s_longest_response(stored):
    rollout, output = stored
    as_is, padded = (TRL["label_smoothing=0.0"][way]["rejected_logps"] for way in ("as_is", "padded"))
    longest = rollout.response_mask.sum(1).argmax()
    assert padded[1] - as_is[1] == pytest.approx(output.logprobs[longest, -1].item(), abs=1e-4)
    assert padded[0] == pytest.approx(as_is[0], abs=1e-4)


def test_mini_batches_hold_each_learnt_row_once_an_epoch_and_pairs_together(folders, tmp_path):
    trainer = make_trainer(str(folders["t5"]), tmp_path, objective="dpo", num_ppo_epochs=3, **GROUPS)
    rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
    _, rewards = compute_token_rewards(rollout, trainer.args, 0.0)
    batch = compute_advantages(rollout, rewards, trainer.args)
    units = _learnt_together(batch, trainer.args)
    assert units.shape == (2, 2)
    assert (units // 4).tolist() == [[0, 0], [1, 1]]
    for best_or_worst in units:
        own = rollout.scores.view(2, 4)[best_or_worst[0] // 4]
        assert sorted(rollout.scores[best_or_worst].tolist()) == [own.min().item(), own.max().item()]
    seen = list(_mini_batches(units, trainer.args))
    assert len(seen) == 3 * 2
    assert all(rows.tolist() in units.tolist() for rows in seen)


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("settings", RANKED, ids=str)
def test_the_policy_learns_and_logs_what_it_learnt_from(folders, tmp_path, family, settings):
    trainer = make_trainer(str(folders[family]), tmp_path, **GROUPS, **settings, learning_rate=5e-3)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert not any("value" in name for name in before)
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    for row in rollout_rows(trainer):
        assert ("rewards/margins" in row) == ("rewards/accuracies" in row) == (settings["objective"] == "dpo")
        assert "policy/clipfrac_avg" not in row
        assert "loss/value_avg" not in row


def test_the_loss_of_raft_is_the_mean_nats_of_a_token_of_the_best(folders, tmp_path):
    trainer = make_trainer(str(folders["t5"]), tmp_path, objective="raft", **{**GROUPS, "num_mini_batches": 1})
    trainer.create_optimizer_and_scheduler(num_training_steps=2)
    rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
    best = torch.stack([rollout.scores[:4].argmax(), 4 + rollout.scores[4:].argmax()])
    mask = torch.zeros_like(rollout.response_mask)
    mask[best] = rollout.response_mask[best]
    trainer.args.num_ppo_epochs = 1
    stats = trainer.update(rollout)
    assert stats["loss/policy_avg"] == pytest.approx(
        -(masked_sum(rollout.logprobs, mask) / mask.sum()).item(), rel=1e-5
    )
    assert stats["loss/total_avg"] == stats["loss/policy_avg"]


def test_raft_ranks_by_reward_less_kl():
    args = config(objective="raft", num_generations=2, per_device_train_batch_size=2)
    one = torch.ones(2, 1)
    parts = dict.fromkeys(("sampled_logprobs", "entropies", "values"), one)
    rollout = Rollout(
        prompt_ids=one.long(), prompt_mask=one.bool(), response_ids=one.long(), response_mask=one.bool(),
        ended=one[:, 0].bool(), logprobs=torch.tensor([[-1.0], [-3.0]]), ref_logprobs=torch.tensor([[-3.0], [-3.0]]),
        scores=torch.tensor([1.0, 0.5]), **parts,
    )  # fmt: skip
    for kl_coef, best in ((0.1, [[1.0], [0.0]]), (0.5, [[0.0], [1.0]])):  # 1 - 0.2 > 0.5, and 1 - 1 < 0.5
        _, rewards = compute_token_rewards(rollout, args, kl_coef)
        assert compute_advantages(rollout, rewards, args).advantages.tolist() == best


@pytest.mark.parametrize("settings", RANKED, ids=str)
def test_accumulation_and_small_micro_batches_change_nothing(folders, tmp_path, settings):
    """One rollout of 12: three prompts of 4 in one piece, or in three."""

    def updated(**size):
        trainer = make_trainer(
            str(folders["t5"]), tmp_path, **{**GROUPS, **settings, **size}, num_mini_batches=1, optim="sgd",
            learning_rate=0.1,
        )  # fmt: skip
        trainer.create_optimizer_and_scheduler(num_training_steps=2)
        torch.manual_seed(0)
        rollout = trainer.collect(trainer.data_collator([trainer.train_dataset[row] for row in range(3)]))
        return trainer.update(rollout), {name: value.clone() for name, value in trainer.model.named_parameters()}

    whole = updated(per_device_train_batch_size=12)
    parts = updated(per_device_train_batch_size=4, gradient_accumulation_steps=3)
    for stats in (whole[0], parts[0]):
        stats.pop("rewards/accuracies", None)  # margins of 0, before the first step, fall to either side
    assert parts[0] == pytest.approx(whole[0], rel=1e-4, abs=1e-6, nan_ok=True)
    for name, value in whole[1].items():
        assert torch.allclose(value, parts[1][name], atol=1e-6), name


def test_an_odd_number_of_generations_keeps_pairs_in_one_micro_batch(folders, tmp_path):
    settings = {**GROUPS, "num_generations": 3, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 4}
    trainer = make_trainer(str(folders["t5"]), tmp_path, objective="dpo", **settings)
    trainer.train()
    assert rollout_rows(trainer)[-1]["loss/policy_avg"] > 0


@pytest.mark.parametrize("settings", RANKED[:2], ids=str)
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(folders, tmp_path, settings):
    saving = {"save_strategy": "steps", "save_steps": 2}
    straight = make_trainer(str(folders["t5"]), tmp_path / "a", **GROUPS, **settings, **saving)
    straight.train()
    resumed = make_trainer(str(folders["t5"]), tmp_path / "b", **GROUPS, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for name, value in straight.model.named_parameters():
        assert torch.equal(value, resumed.model.get_parameter(name)), name


def test_equal_scores_teach_hard_labels_nothing(folders, tmp_path):
    trainer = make_trainer(
        str(folders["t5"]), tmp_path, lambda completions, **_: [1.0] * len(completions), objective="dpo",
        dpo_labels="hard", **{**GROUPS, "total_episodes": 8},
    )  # fmt: skip
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert rollout_rows(trainer)[0]["loss/policy_avg"] == 0.0
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


def test_a_value_model_is_refused_where_there_is_no_critic(folders, tmp_path):
    with pytest.raises(InputError, match="no value_model with objective='dpo'"):
        make_trainer(str(folders["t5"]), tmp_path, value_model=str(folders["t5"]), objective="dpo", **GROUPS)


def test_the_classic_loop_learns_from_ranked_groups(folders, tmp_path):
    trainer = make_trainer(str(folders["t5"]), tmp_path, objective="dpo", **GROUPS)
    batch = next(iter(trainer.dataloader))
    responses = trainer.generate(batch["input_ids"])
    stats = trainer.step(batch["input_ids"], responses, torch.arange(8.0))
    assert stats["ppo/loss/policy"] > 0
