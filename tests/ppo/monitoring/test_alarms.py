"""Alarms on a rollout by hand, and on real runs that go wrong."""

import dataclasses
import logging

import pytest
import torch
from transformers import TrainerCallback

from tests.ppo.test_trainer import make_trainer, rollout_rows, vowels, weights
from tests.ppo.test_update import rollout
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring.alarms import (
    Alarm,
    AlarmError,
    AlarmMonitor,
    find_alarms,
    find_held_out_alarm,
)

# `rollout_statistics` of the two responses of `rollout()`, in a run that is well.
WELL = {"objective/entropy": 1.0, "val/num_eos_tokens": 2.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


def config(**settings):
    return Seq2SeqPPOConfig(output_dir="unused", report_to="none", **settings)


def apart(nats, of):
    """Responses `nats` from the reference on average, the second one furthest."""
    difference = torch.zeros_like(of.logprobs)
    difference[:, 0] = torch.tensor([nats - 1, nats + 1])
    return dataclasses.replace(of, logprobs=torch.zeros_like(difference), ref_logprobs=-difference)


def equal_rollout():
    """Two responses that differ on padding only."""
    ids, mask = torch.tensor([[8, 1, 0], [8, 1, 9]]), torch.tensor([[True, True, False]] * 2)
    zeros = dict.fromkeys(("logprobs", "ref_logprobs", "entropies"), torch.zeros(2, 3))
    return dataclasses.replace(rollout(), response_ids=ids, response_mask=mask, **zeros)


@pytest.mark.parametrize(
    ("change", "name", "row", "said"),
    [
        ({"nats": 9.0}, "kl", 1, "9.0 nats per response, above max_kl=8"),
        ({"objective/entropy": 0.01}, "entropy", 0, "0.01 nats per token, below min_entropy=0.2"),
        (
            {"val/num_eos_tokens": 0.5},
            "unended_responses",
            1,
            "75% of the responses have no EOS within response_length",
        ),
    ],
)
def test_each_alarm_names_what_was_found_its_limit_and_the_response(change, name, row, said):
    limits = config(max_kl=8.0, min_entropy=0.2, max_unended_share=0.5)
    shown = dataclasses.replace(rollout(), ended=torch.tensor([True, False]))
    assert find_alarms(apart(1.0, shown), WELL, limits) == []
    (alarm,) = find_alarms(apart(change.get("nats", 1.0), shown), {**WELL, **change}, limits)
    assert (alarm.name, alarm.row) == (name, row)
    assert said in alarm.found


def test_the_kl_alarm_reads_the_log_ratio_whatever_estimator_is_logged():
    limits = config(max_kl=50.0, kl_estimator="k3")
    # A token at a log-ratio of -6 is e^6 - 7 = 396 nats by k3.
    assert find_alarms(apart(-6.0, rollout()), {**WELL, "objective/kl": 396.0}, limits) == []


def test_equal_responses_are_told_by_their_real_tokens():
    (alarm,) = find_alarms(equal_rollout(), WELL, config())
    assert alarm == Alarm("equal_responses", "all 2 responses of the rollout are equal", 0)


def test_alarms_are_those_of_all_processes():
    stats = {**WELL, "val/num_eos_tokens": 4.0}
    assert (
        find_alarms(equal_rollout(), stats, config(), gather=lambda parts: [*parts, (2, 0.0, [(8, 2), (8, 3)])]) == []
    )
    (alarm,) = find_alarms(equal_rollout(), stats, config(), gather=lambda parts: 2 * parts)
    assert alarm.found == "all 4 responses of the rollout are equal"
    limits = config(max_unended_share=0.1)
    (alarm,) = find_alarms(rollout(), {**WELL, "val/num_eos_tokens": 3.0}, limits, gather=lambda parts: 2 * parts)
    assert alarm.found.startswith("25% of the responses have no EOS")


def test_at_its_limit_nothing_rings_and_none_turns_an_alarm_off():
    limits = config(max_kl=8.0, min_entropy=0.2, max_unended_share=0.5)
    edge = {"objective/entropy": 0.2, "val/num_eos_tokens": 1.0}
    assert find_alarms(apart(8.0, rollout()), edge, limits) == []
    silent = config(max_kl=None, min_entropy=None, max_unended_share=None)
    worst = {"objective/entropy": 0.0, "val/num_eos_tokens": 0.0}
    assert find_alarms(apart(99.0, rollout()), worst, silent) == []


def test_a_single_response_equals_no_other():
    one = equal_rollout().select(torch.tensor([0]))
    assert find_alarms(one, {**WELL, "val/num_eos_tokens": 1.0}, config()) == []


def test_the_held_out_alarm_names_the_step_the_changes_and_the_response_that_judge_likes_least():
    pairs = zip([0, 0, 0, 0, 0, 2, 4, 6], [6, 6, 6, 6, 6, 3, 0, -3], strict=True)
    log = [
        {"step": 10 * place, "eval_reward": float(first), "eval_held_out_reward": float(second)}
        for place, (first, second) in enumerate(pairs, 1)
    ]
    others = [{"step": 5, "objective/scores": 1.0}, {"step": 10, "eval_reward": 9.0}]
    (alarm,) = find_held_out_alarm([*others, *log], {"held_out_reward": [1.0, -2.0, 0.0]})
    # Windows of 3, the best of which ends at step 30; tests/ppo/maths/test_over_optimisation.py works the numbers out.
    found = "since step 30 eval_held_out_reward fell by 6, more than its noise, while eval_reward changed by +4"
    assert alarm == Alarm("held_out_reward", found, 1)
    # A process without a share of the prompts raises it too.
    assert find_held_out_alarm(log, {}) == [Alarm("held_out_reward", found, 0)]
    assert find_held_out_alarm(log[:7], {}) == find_held_out_alarm(others, {}) == []


def test_the_monitor_speaks_at_the_first_tenth_and_hundredth_rollout(caplog):
    monitor = AlarmMonitor(config(), str)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 121):
            monitor.raise_alarms([Alarm("kl", "too far", 0)], step, lambda row: "'p'")
            monitor.raise_alarms([], step, str)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 1", "step 10", "step 100"]
    assert "Seen at the prompt 'p'. Likely cause: the policy moves away" in caplog.records[0].getMessage()


def test_other_processes_keep_quiet_but_stop_too(caplog, monkeypatch):
    monkeypatch.setattr(Seq2SeqPPOConfig, "process_index", 1)
    alarm = Alarm("kl", "too far", 0)
    AlarmMonitor(config(), str).raise_alarms([alarm], 1, str)
    assert not caplog.records
    with pytest.raises(AlarmError, match="step 1: too far"):
        AlarmMonitor(config(stop_on=["kl"]), str).raise_alarms([alarm], 1, str)


@pytest.mark.parametrize(
    "settings",
    [
        {"stop_on": ["kl", "entropi"]},
        {"max_kl": 0.0},
        {"min_entropy": -1.0},
        {"max_unended_share": 1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    (name,) = settings
    with pytest.raises(InputError, match=name):
        config(**settings)


class Moved(TrainerCallback):
    """Puts another head on the policy after two steps: a collapse without its long history."""

    def __init__(self, change):
        self.change = change

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2:
            with torch.no_grad():
                self.change(model.policy)


def sharpen(policy):
    policy.lm_head.weight *= 1000.0


def silence(policy):
    """The EOS is always the likeliest token, whatever the prompt."""
    policy.lm_head.weight.zero_()
    policy.decoder.final_layer_norm.weight.zero_()
    policy.get_decoder().final_layer_norm.register_forward_hook(lambda module, args, output: output + 1.0)
    policy.lm_head.weight[1] = 100.0


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (sharpen, "kl", "above max_kl=20"),
        (sharpen, "entropy", "below min_entropy=0.05"),
        (silence, "equal_responses", "all 4 responses of the rollout are equal"),
    ],
)
def test_a_run_that_collapses_stops_where_it_is_asked_to_and_warns_otherwise(
    model, tmp_path, caplog, change, name, said
):
    settings = {
        "callbacks": [Moved(change)], "max_kl": 20.0, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-5,
        "response_length": 20, "total_episodes": 12,
    }  # fmt: skip
    stopped = make_trainer(model, tmp_path / "stopped", stop_on=[name], **settings)
    with pytest.raises(AlarmError, match=rf"^step 3: .*{said}.*Seen at the prompt '.*Likely cause: "):
        stopped.train()
    assert stopped.state.global_step == 2
    caplog.clear()
    warned = make_trainer(model, tmp_path / "warned", **settings)
    warned.train()
    assert warned.state.global_step == 3
    (message,) = [text for text in caplog.messages if said in text]
    assert message.startswith("step 3: ")
    assert f"stop_on=['{name}'] would stop it" in message


def test_responses_that_never_end_stop_the_run_before_it_learns_from_them(model, tmp_path):
    trainer = make_trainer(
        model, tmp_path, response_length=2, min_new_tokens=1, stop_on=["unended_responses"], max_unended_share=0.0
    )
    start = weights(trainer)
    with pytest.raises(AlarmError, match=r"step 1: .* no EOS within response_length=2.*missing_eos_penalty"):
        trainer.train()
    assert all(torch.equal(value, start[name]) for name, value in weights(trainer).items())


def test_the_checkpoint_before_an_alarm_is_good_and_the_run_goes_on_from_it(model, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "total_episodes": 16, "learning_rate": 5e-2}
    straight = make_trainer(model, tmp_path / "straight", **settings)
    straight.train()
    kls = [row["objective/kl"] for row in rollout_rows(straight)]
    *_, second, highest = sorted(kls)
    worst = kls.index(highest) + 1
    assert worst > 1  # at the start the KL is 0
    with pytest.raises(AlarmError, match=rf"^step {worst}: the KL"):
        make_trainer(
            model, tmp_path / "run", vowels, max_kl=(second + highest) / 2, stop_on=["kl"], **settings
        ).train()
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == worst - 1
    resumed = make_trainer(model, tmp_path / "run", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(value, weights(straight)[name]) for name, value in weights(resumed).items())
