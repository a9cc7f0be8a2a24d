"""The run log: means since the last log, the reward of an epoch, and the same numbers after a resume."""

import torch

from trl_rewards_plugin.ppo.checkpoints.state import RunState
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring.run_log import RunLog


def run_log():
    return RunLog(Seq2SeqPPOConfig(output_dir="unused", report_to="none"), str)


def restore(into, log, **change):
    metrics = log.own_metrics()
    saved = RunState(kl_coef=0.1, seconds=1.0, metrics=[metrics], rewards=[{}], **{**log.counters(), **change})
    into.restore(saved, metrics)


def test_means_and_the_epoch_reward_are_taken_once():
    log = run_log()
    log.add_rollout({"kl": 1.0}, torch.tensor([1.0, 2.0]))
    log.add_rollout({"kl": 2.0}, torch.tensor([6.0]))
    assert log.take_means() == {"episode": 3, "kl": 1.5}
    assert log.take_means() == {"episode": 3}
    assert log.take_epoch_reward() == 3.0
    assert log.take_epoch_reward() is None


def test_a_log_restored_from_its_state_goes_on_as_the_one_that_was_saved():
    log = run_log()
    log.add_rollout({"kl": 1.0}, torch.tensor([1.0, 3.0]))
    restored = run_log()
    restore(restored, log)
    for each in (log, restored):
        each.add_rollout({"kl": 4.0}, torch.tensor([8.0]))
    assert restored.take_means() == log.take_means() == {"episode": 3, "kl": 2.5}
    assert restored.take_epoch_reward() == log.take_epoch_reward() == 4.0


def test_the_total_loss_is_kept_over_a_resume_and_unknown_after_an_older_checkpoint():
    log = run_log()
    log.add_rollout({"loss/total_avg": 1.0}, torch.zeros(2))
    restored, older = run_log(), run_log()
    restore(restored, log)
    restore(older, log, total_loss=None)
    for each in (restored, older):
        each.add_rollout({"loss/total_avg": 3.0}, torch.zeros(2))
    assert restored.total_loss == 4.0
    assert older.total_loss is None
