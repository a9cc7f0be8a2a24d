"""Targets and logged numbers of a rollout, by hand."""

import dataclasses
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring.run_log import critic_statistics, rollout_statistics
from trl_rewards_plugin.ppo.policy.policy import PolicyOutput
from trl_rewards_plugin.ppo.rollout import Rollout, UpdateBatch, join_rollouts
from trl_rewards_plugin.ppo.update import compute_advantages, compute_token_rewards, ppo_losses

MASK = torch.tensor([[True, True], [True, False]])


def rollout():
    """Two responses, of two tokens and of one."""
    return Rollout(
        prompt_ids=torch.tensor([[5, 6, 1], [7, 1, 0]]),
        prompt_mask=torch.tensor([[True, True, True], [True, True, False]]),
        response_ids=torch.tensor([[8, 1], [1, 0]]),
        response_mask=MASK,
        ended=torch.tensor([True, True]),
        sampled_logprobs=torch.tensor([[-1.0, -2.0], [-0.5, 0.0]]),
        logprobs=torch.tensor([[-1.0, -2.25], [-0.5, -99.0]]),
        ref_logprobs=torch.tensor([[-1.5, -2.0], [-1.0, -99.0]]),
        entropies=torch.tensor([[1.0, 2.0], [3.0, 99.0]]),
        values=torch.tensor([[0.5, 1.0], [0.0, 99.0]]),
        scores=torch.tensor([2.0, -1.0]),
    )


def config(**settings):
    return Seq2SeqPPOConfig(output_dir="unused", report_to="none", **{"gamma": 1.0, "lam": 1.0, **settings})


def compute_targets(data, args, kl_coef):
    kl, rewards = compute_token_rewards(data, args, kl_coef)
    batch = compute_advantages(data, rewards, args)
    return SimpleNamespace(kl=kl, rewards=rewards, advantages=batch.advantages, returns=batch.returns)


def test_targets_by_hand():
    targets = compute_targets(rollout(), config(whiten_advantages=False), kl_coef=0.1)
    assert targets.kl.tolist() == [[0.5, -0.25], [0.5, 0.0]]
    assert torch.allclose(targets.rewards, torch.tensor([[-0.05, 2.025], [-1.05, 0.0]]))
    assert torch.allclose(targets.returns, torch.tensor([[1.975, 2.025], [-1.05, 0.0]]))
    assert torch.allclose(targets.advantages, torch.tensor([[1.475, 1.025], [-1.05, 0.0]]))


def test_a_unit_of_reward_is_that_of_the_group_where_grpo_scales_by_group():
    """Totals 0 and 1, and 0 and 100: each group's advantages are its own units."""
    data = rollout()
    four = Rollout(**{name: torch.cat([tensor, tensor]) for name, tensor in data.tensors().items()})
    four = replace(four, scores=torch.tensor([0.0, 1.0, 0.0, 100.0]), response_mask=torch.tensor([[True, False]] * 4))
    four = replace(four, exact_kl=torch.zeros(4, 2))
    args = config(advantage_estimator="grpo", num_generations=2, per_device_train_batch_size=4, kl_estimator="full")
    _, rewards = compute_token_rewards(four, args, 0.0)
    batch = compute_advantages(four, rewards, args)
    # (total - mean) / std = 0.5 / 0.7071, beside total less the other's = 1; likewise 50 / 70.71 and 100.
    expected = torch.tensor([0.7071, 0.7071, 0.007071, 0.007071])
    torch.testing.assert_close(batch.reward_scale, expected, rtol=1e-3, atol=0)


def test_whitening_moves_the_advantages_and_not_the_returns():
    plain = compute_targets(rollout(), config(whiten_advantages=False), kl_coef=0.1)
    white = compute_targets(rollout(), config(), kl_coef=0.1)
    assert torch.equal(plain.returns, white.returns)
    assert white.advantages[MASK].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white.advantages[MASK].std().item() == pytest.approx(1.0, abs=1e-5)


def test_whitened_rewards_keep_their_mean_and_reach_the_returns():
    plain = compute_targets(rollout(), config(), kl_coef=0.1)
    white = compute_targets(rollout(), config(whiten_rewards=True), kl_coef=0.1)
    assert white.rewards[MASK].mean().item() == pytest.approx(plain.rewards[MASK].mean().item(), abs=1e-6)
    assert white.rewards[MASK].std().item() == pytest.approx(1.0, abs=1e-5)
    assert not torch.equal(plain.returns, white.returns)


def test_a_kl_penalty_in_the_loss_is_no_reward_that_was_given():
    data = rollout()
    kl = compute_targets(data, config(), kl_coef=0.1).kl
    stats = rollout_statistics(data, kl, 0.1, in_reward=False)
    assert stats["objective/non_score_reward"] == 0.0
    assert math.copysign(1, stats["objective/non_score_reward"]) == 1
    assert stats["objective/rlhf_reward"] == stats["objective/scores"]
    assert stats["objective/kl"] == pytest.approx(0.375)


@pytest.mark.parametrize(("level", "spread"), [(0.0, 1.0), (100.0, 0.1), (1000.0, 0.1), (-1000.0, 1.0)])
def test_the_explained_variance_is_that_of_float64_at_any_level(level, spread):
    generator = torch.Generator().manual_seed(0)
    returns = level + spread * torch.randn(64, 16, generator=generator)
    values = returns + 0.5 * spread * torch.randn(64, 16, generator=generator)
    mask = torch.arange(16) < torch.arange(64).unsqueeze(1) % 16 + 1
    stats = critic_statistics(SimpleNamespace(response_mask=mask, returns=returns, values=values))
    real, error = returns[mask].double(), (returns - values)[mask].double() ** 2
    assert stats["val/error"] == pytest.approx(error.mean().item(), rel=1e-6)
    assert stats["val/var_explained"] == pytest.approx(1 - (error.mean() / real.var(correction=0)).item(), abs=1e-6)


def test_returns_that_are_all_equal_leave_nothing_to_explain():
    mask, returns = torch.ones(8, 4, dtype=torch.bool), torch.full((8, 4), 1000.1)
    stats = critic_statistics(SimpleNamespace(response_mask=mask, returns=returns, values=returns + 1))
    assert math.isnan(stats["val/var_explained"])


@pytest.mark.parametrize("padding", [-20.0, -89.0, -1e4, -math.inf, 1e4])
@pytest.mark.parametrize("where", ["logprobs", "old", "reference"])
def test_what_stands_on_padding_changes_neither_losses_nor_gradients(padding, where):
    def losses(filled):
        parts = {name: torch.tensor([[-1.0, filled if name == where else 0.0]]) for name in ("old", "reference")}
        logprobs = torch.tensor([[-0.8, filled if where == "logprobs" else 0.0]], requires_grad=True)
        mask, zeros = torch.tensor([[True, False]]), torch.zeros(1, 2)
        batch = SimpleNamespace(
            response_mask=mask, logprobs=parts["old"], ref_logprobs=parts["reference"], sampled_logprobs=parts["old"],
            advantages=torch.tensor([[1.0, 0.0]]), returns=zeros, values=zeros, reward_scale=None,
        )  # fmt: skip
        args = config(use_kl_loss=True, kl_estimator="k3", advantage_estimator="grpo", num_generations=2)
        found = ppo_losses(PolicyOutput(logprobs, zeros, zeros), batch, torch.tensor(0.5), args)
        found["loss/total_avg"].backward()
        return {name: value.item() for name, value in found.items()}, logprobs.grad.tolist()

    assert losses(padding) == losses(0.0)
    assert losses(padding)[1][0][1] == 0.0


def test_logged_numbers_by_hand():
    data = rollout()
    stats = rollout_statistics(data, compute_targets(data, config(), kl_coef=0.1).kl, kl_coef=0.1)
    assert stats["objective/scores"] == 0.5
    assert stats["objective/scores_std"] == 1.5
    assert stats["objective/kl"] == pytest.approx(0.375)  # (0.25 + 0.5) / 2 responses
    assert stats["objective/non_score_reward"] == pytest.approx(-0.0375)
    assert stats["objective/rlhf_reward"] == pytest.approx(0.4625)
    assert stats["objective/entropy"] == 2.0  # (1 + 2 + 3) / 3 tokens
    assert stats["val/num_eos_tokens"] == 2.0
    assert stats["tokens/queries_len_mean"] == 2.5
    assert stats["tokens/responses_len_mean"] == 1.5


def test_joined_and_selected_rows_are_the_rows_they_were():
    data = rollout()
    narrow = data.select(torch.tensor([1]))
    assert narrow.prompt_ids.tolist() == [[7, 1]]
    assert narrow.response_ids.tolist() == [[1]]
    joined = join_rollouts([narrow, data], pad_id=0)
    assert joined.prompt_ids.tolist() == [[7, 1, 0], [5, 6, 1], [7, 1, 0]]
    assert joined.prompt_mask.tolist()[0] == [True, True, False]
    assert joined.scores.tolist() == [-1.0, 2.0, -1.0]
    again = joined.select(torch.tensor([0]))
    assert again.values.tolist() == narrow.values.tolist()


def grouped(estimator, **settings):
    """The two responses as a group: what they earned, KL included, is 1.975 and -1.05."""
    args = config(
        advantage_estimator=estimator, num_generations=2, per_device_train_batch_size=2, num_mini_batches=1, **settings
    )
    return compute_targets(rollout(), args, kl_coef=0.1)


def test_reinforce_gives_every_token_what_is_still_to_come():
    targets = compute_targets(rollout(), config(advantage_estimator="reinforce", whiten_advantages=False), kl_coef=0.1)
    assert torch.allclose(targets.advantages, torch.tensor([[1.975, 2.025], [-1.05, 0.0]]))


def test_rloo_gives_every_token_of_a_response_its_lead_over_the_others():
    assert torch.allclose(grouped("rloo").advantages, torch.tensor([[3.025, 3.025], [-3.025, 0.0]]))


def test_grpo_measures_the_lead_in_standard_deviations():
    # Of two the mean is halfway and the unbiased standard deviation the difference over sqrt(2): 1 / sqrt(2) each.
    expected = 0.5 * 3.025 / (3.025 / 2**0.5 + 1e-4)
    assert torch.allclose(grouped("grpo").advantages, torch.tensor([[expected, expected], [-expected, 0.0]]))


def test_each_reward_is_normalised_and_the_kl_stays_in_the_reward():
    # Of two responses each reward's deviations are -+ 1 / sqrt(2), whatever its size; then the batch's scale.
    data = dataclasses.replace(rollout(), reward_scores=torch.tensor([[4.0, 0.0], [1.0, 100.0]]))
    data = dataclasses.replace(data, ended=torch.tensor([True, False]))
    args = config(
        advantage_estimator="grpo",
        num_generations=2,
        per_device_train_batch_size=2,
        multi_objective_aggregation="normalize_then_sum",
        reward_weights=[1.0, 0.5],
        missing_eos_penalty=0.25,
    )
    _, rewards = compute_token_rewards(data, args, kl_coef=0.1)
    one = 0.5**0.5 - 0.5 * 0.5**0.5
    expected = [one - 0.1 * (0.5 - 0.25), -one - 0.25 - 0.1 * 0.5]
    assert rewards.sum(1).tolist() == pytest.approx(expected, abs=1e-4)
    batch = compute_advantages(data, rewards, args)
    assert batch.reward_scores is None
    # Less their mean, over the deviation of both: of two numbers that is -+ 1 / sqrt(2) again.
    assert batch.advantages[:, 0].tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-3)


def test_the_share_of_prompts_whose_responses_score_alike():
    data = dataclasses.replace(rollout(), scores=torch.tensor([2.0, 2.0]))
    kl = torch.zeros(2, 2)
    assert rollout_statistics(data, kl, 0.1, num_generations=2)["frac_reward_zero_std"] == 1.0
    assert rollout_statistics(rollout(), kl, 0.1, num_generations=2)["frac_reward_zero_std"] == 0.0
    assert "frac_reward_zero_std" not in rollout_statistics(data, kl, 0.1)


def losses_of(advantages, mean_length=1.0, **settings):
    """Ratio 1, so the policy loss of a token is minus its advantage; entropies 1, 2 and 3, masked 99."""
    data = rollout()
    zeros = torch.zeros(2, 2)
    batch = UpdateBatch(**data.tensors(), advantages=advantages, returns=zeros, reward_scale=torch.ones(2))
    args = config(advantage_estimator="reinforce", **settings)
    output = PolicyOutput(data.logprobs, data.entropies, zeros)
    found = ppo_losses(output, batch, torch.tensor(0.0), args, mean_length)
    return {name: value.item() for name, value in found.items()}


def test_the_entropy_bonus_is_taken_off_the_loss():
    found = losses_of(torch.tensor([[1.0, 2.0], [4.0, 99.0]]), entropy_coef=0.5)
    assert found["loss/policy_avg"] == -7.0
    assert found["loss/total_avg"] == -7.0 - 0.5 * 6.0


def test_responses_of_two_tokens_and_of_one_count_alike_in_a_mean_of_their_means():
    found = losses_of(torch.tensor([[1.0, 2.0], [4.0, 99.0]]), mean_length=1.5, loss_type="grpo")
    assert found["loss/policy_avg"] / 3 == -(1.5 + 4.0) / 2  # as of the sum over all tokens, of which there are 3


def test_kl_in_the_loss_is_not_in_the_rewards():
    targets = grouped("rloo", use_kl_loss=True, kl_estimator="k3")
    assert targets.rewards.tolist() == [[0.0, 2.0], [-1.0, 0.0]]
    assert targets.kl[0, 0].item() == pytest.approx(math.exp(-0.5) - 1 + 0.5)
