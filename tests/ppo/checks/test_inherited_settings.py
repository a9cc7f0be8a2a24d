"""Every field of the installed TrainingArguments is tried here, tried where it is at home, or refused by its name."""

import dataclasses
import inspect
import sys
import time
from unittest.mock import MagicMock

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.integrations import integration_utils

from tests.ppo.test_trainer import dataset, make_trainer, rollout_rows, weights
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.checks.inherited_settings import REFUSED, REFUSED_METHODS
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig

FIELDS = {field.name for field in dataclasses.fields(TrainingArguments)}
# Two short trainings with as many settings at once as go together; some are of other versions of transformers.
TRIED = [
    {
        "adam_beta1": 0.8,
        "adam_beta2": 0.9,
        "data_seed": 5,
        "dataloader_in_order": True,
        "dataloader_multiprocessing_context": "fork",
        "dataloader_num_workers": 1,
        "dataloader_persistent_workers": True,
        "dataloader_pin_memory": False,
        "dataloader_prefetch_factor": 2,
        "do_eval": True,
        "do_train": True,
        "eval_on_start": True,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "full_determinism": False,
        "tf32": False,
        "gradient_accumulation_steps": 2,
        "logging_first_step": True,
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "max_grad_norm": 0.5,
        "metric_for_best_model": "reward",
        "optim": "adamw_torch",
        "per_device_eval_batch_size": 3,
        "run_name": "tried",
        "save_steps": 1,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "skip_memory_metrics": True,
        "warmup_steps": 1,
        "weight_decay": 0.1,
    },
    {
        "accelerator_config": {"use_seedable_sampler": True},
        "bf16": True,
        "eval_delay": 1,
        "eval_strategy": "epoch",
        "log_level": "error",
        "log_level_replica": "error",
        "logging_strategy": "epoch",
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "metric_for_best_model": "reward",
        "num_train_epochs": 1,
        "logging_dir": "unused",
        "optim": "sgd",
        "optim_args": "momentum=0.5,nesterov=true",
        "save_only_model": True,
        "save_strategy": "epoch",
        "total_episodes": None,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "warmup_ratio": 0.5,
    },
]
# Each with the test, or the library whose device or service it needs.
ELSEWHERE = {
    "tests/ppo/test_trainer.py, tests/ppo/test_refusals.py": """
        output_dir per_device_train_batch_size max_steps learning_rate adam_epsilon activation_checkpointing
        activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs logging_steps
        logging_nan_inf_filter disable_tqdm report_to seed resume_from_checkpoint load_best_model_at_end
        greater_is_better""",
    "tests/hub": "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision",
    "tests/ppo/test_two_processes.py, examples/accelerate": """
        ddp_backend ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph
        fsdp fsdp_config deepspeed local_rank log_on_each_node save_on_each_node""",
    "tests of this file": """
        ignore_data_skip restore_callback_states_from_checkpoint project trackio_space_id trackio_bucket_id
        trackio_static_space_id""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


def test_every_field_is_tried_somewhere_or_refused():
    tried = {name for settings in TRIED for name in settings} | set(" ".join(ELSEWHERE.values()).split())
    assert not tried & REFUSED.keys() - {"train_sampling_strategy"}  # of which some values work
    new = FIELDS - tried - REFUSED.keys()
    assert not new, f"new in transformers, to be tried or refused: {sorted(new)}"


@pytest.mark.parametrize("settings", TRIED, ids=["steps", "epochs"])
def test_used_settings_work_together(folder, tmp_path, settings):
    settings = {name: value for name, value in settings.items() if name in FIELDS or name == "total_episodes"}
    settings = {"num_mini_batches": 1, "num_ppo_epochs": 1, "total_episodes": 16, **settings}
    trainer = make_trainer(folder, tmp_path, **settings)
    before = weights(trainer)
    trainer.train()
    assert trainer.state.global_step == 16 // trainer.args.batch_size
    assert any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_a_resume_may_restart_the_epoch_and_restores_callbacks(folder, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "num_ppo_epochs": 1, "num_mini_batches": 1}
    settings |= {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "reward"}
    settings |= {"load_best_model_at_end": True, "restore_callback_states_from_checkpoint": True}
    patient = EarlyStoppingCallback(early_stopping_patience=7)
    make_trainer(folder, tmp_path, callbacks=[patient], total_episodes=8, **settings).train()

    seen = []

    def ranks(completions, rank, **kwargs):
        seen.extend(rank)
        return [0.0] * len(completions)

    later = EarlyStoppingCallback(early_stopping_patience=3)
    settings |= {"ignore_data_skip": True, "total_episodes": 12}
    trainer = make_trainer(folder, tmp_path, ranks, callbacks=[later], **settings)
    trainer.train(resume_from_checkpoint=True)
    (restored,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback))
    assert restored.early_stopping_patience == 7
    assert trainer.state.global_step == 3
    first = next(iter(make_trainer(folder, tmp_path / "other").get_train_dataloader()))
    assert seen[:4] == first["columns"]["rank"]  # and not those that would be third


def test_trackio_gets_the_settings_that_are_its_own(folder, tmp_path, monkeypatch):
    trackio = MagicMock()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(integration_utils, "is_trackio_available", lambda: True)
    own = {"project": "politeness", "trackio_space_id": "me/space"}
    own |= {name: None for name in ("trackio_bucket_id", "trackio_static_space_id") if name in FIELDS}
    trainer = make_trainer(folder, tmp_path, total_episodes=4, num_ppo_epochs=1, report_to="trackio", **own)
    trainer.train()
    asked = trackio.init.call_args.kwargs
    assert {"politeness", "me/space"} <= {str(value) for value in asked.values()}
    assert any("train/objective/kl" in call.args[0] for call in trackio.log.call_args_list)


# A value that asks for something, for each refused field that transformers has.
ASKED = {
    "average_tokens_across_devices": False,
    "dataloader_drop_last": False,
    "debug": "underflow_overflow",
    "optim_target_modules": "all-linear",
    "eval_accumulation_steps": 2,
    "eval_do_concat_batches": False,
    "include_for_metrics": ["inputs"],
    "include_num_input_tokens_seen": "all",
    "label_names": ["labels"],
    "label_smoothing_factor": 0.1,
    "length_column_name": "size",
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "parallelism_config": "cp",
    "torch_compile_backend": "inductor",
    "torch_compile_mode": "default",
    "torch_empty_cache_steps": 4,
    "train_sampling_strategy": "group_by_length",
}


@pytest.mark.parametrize("name", sorted(FIELDS & REFUSED.keys()))
def test_a_refused_setting_is_named_with_what_to_use_instead(tmp_path, name):
    value = ASKED.get(name, True)
    with pytest.raises(InputError) as caught:
        Seq2SeqPPOConfig(output_dir=str(tmp_path), report_to="none", **{name: value})
    assert name in caught.value.found
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"accelerator_config": {"dispatch_batches": True}}, "dispatch_batches=True"),
        ({"accelerator_config": {"split_batches": True}}, "split_batches=True"),
        ({"optim": "lomo"}, "lomo"),
        ({"optim_args": "betas=0.9"}, "optim_args='betas=0.9'"),
        ({"vf_coef": 0.0}, "vf_coef=0"),
        ({"optim": "schedule_free_adamw"}, "schedule_free_adamw"),
        ({"load_best_model_at_end": True, "eval_strategy": "steps"}, "load_best_model_at_end=True"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"}, "reduce_lr_on_plateau"),
        ({"save_strategy": "best", "eval_strategy": "steps", "metric_for_best_model": "loss"}, "save_strategy='best'"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"learning_rate": "2e-4"}, "learning_rate='2e-4'"),
        ({"kl_coef": "0.05"}, "kl_coef='0.05'"),
        ({"response_length": "40"}, "response_length='40'"),
        ({"num_ppo_epochs": 2.5}, "num_ppo_epochs=2.5"),
        ({"max_steps": -3}, "max_steps=-3"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"num_train_epochs": 0}, "num_train_epochs=0"),
        ({"reward_weights": [0.0, 0.0]}, "reward_weights=[0.0, 0.0]"),
        ({"adaptive_kl": True, "kl_horizon": 4}, "kl_horizon=4"),
    ],
    ids=str,
)
def test_values_that_do_something_else_than_they_say_are_refused(tmp_path, settings, found):
    with pytest.raises(InputError) as caught:
        Seq2SeqPPOConfig(output_dir=str(tmp_path), report_to="none", **settings)
    assert found in caught.value.found


def test_large_rollouts_need_no_horizon_where_the_kl_coefficient_stays(tmp_path):
    Seq2SeqPPOConfig(output_dir=str(tmp_path), report_to="none", gradient_accumulation_steps=64, kl_horizon=100)


_USED_METHODS = """
    add_callback autocast_smart_context_manager call_model_init compute_loss_context_manager
    create_accelerator_and_postprocess create_model_card create_optimizer create_optimizer_and_scheduler
    create_scheduler end evaluate floating_point_ops get_batch_samples get_cp_size get_decay_parameter_names
    get_eval_dataloader get_learning_rates get_num_trainable_parameters get_optimizer_cls_and_kwargs
    get_optimizer_group get_sp_size get_total_train_batch_size get_tp_size get_train_dataloader init_hf_repo
    is_local_process_zero is_world_process_zero log log_metrics metrics_format num_examples num_tokens pop_callback
    push_to_hub remove_callback save_metrics save_model save_state set_initial_training_values store_flos train
    training_step propagate_args_to_deepspeed ipex_optimize_model torch_jit_model_eval
    """
USED_METHODS = set(_USED_METHODS.split())


def test_every_public_method_of_the_trainer_is_used_or_refused():
    public = {name for name, _ in inspect.getmembers(Trainer, inspect.isfunction) if not name.startswith("_")}
    assert not public - USED_METHODS - REFUSED_METHODS.keys()


@pytest.fixture(scope="module")
def trainer(folder, tmp_path_factory):
    return make_trainer(folder, tmp_path_factory.mktemp("run"), total_episodes=4, num_ppo_epochs=1, num_mini_batches=1)


@pytest.mark.parametrize("name", sorted(REFUSED_METHODS))
def test_a_refused_method_says_what_to_call_instead(trainer, name):
    with pytest.raises(InputError, match="Next:") as caught:
        getattr(trainer, name)(dataset(4))
    assert caught.value.found == f"{name}()"


def test_methods_that_only_ask_work(trainer):
    assert trainer.get_num_trainable_parameters() == sum(p.numel() for p in trainer.model.parameters())
    assert trainer.num_examples(trainer.get_train_dataloader()) == 16
    assert trainer.get_total_train_batch_size(trainer.args) == 4
    assert trainer.get_decay_parameter_names(trainer.model)


def test_a_second_training_starts_with_a_new_optimizer_and_clock_and_step_after_it_is_refused(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, total_episodes=8, num_ppo_epochs=1, num_mini_batches=1)
    counts, seconds = [], []
    began = time.perf_counter()
    for _ in range(2):
        trainer.train()
        (count,) = {int(state["step"]) for state in trainer.optimizer.state.values() if "step" in state}
        counts.append((count, trainer.episodes, trainer.state.global_step))
        seconds.append(trainer.train_seconds)
    assert counts == [(2, 8, 2)] * 2
    assert sum(seconds) <= time.perf_counter() - began  # each of its own run alone
    queries = [torch.tensor([5, 6, 1])] * 4
    with pytest.raises(InputError, match="after train"):
        trainer.step(queries, trainer.generate(queries), [0.0, 1.0, 2.0, 3.0])


def test_the_kl_coefficient_waits_for_the_policy_during_critic_warm_up(folder, tmp_path):
    settings = {"adaptive_kl": True, "kl_horizon": 8, "critic_warmup_steps": 2, "num_ppo_epochs": 1}
    trainer = make_trainer(folder, tmp_path, total_episodes=16, **settings)
    trainer.train()
    found = [row["objective/kl_coef"] for row in rollout_rows(trainer)]
    assert found[0] == found[1] == found[2] == trainer.args.initial_kl_coef != found[3]


@pytest.mark.parametrize("strategy", ["random", "sequential"])
def test_every_rollout_is_whole_in_either_order(folder, tmp_path, strategy):
    trainer = make_trainer(folder, tmp_path, rows=14, train_sampling_strategy=strategy, gradient_accumulation_steps=2)
    batches = [len(batch["prompt_ids"]) for batch in trainer.get_train_dataloader()]
    assert batches == [4, 4]  # of 14 prompts 8 make a whole rollout
    if strategy == "sequential":
        ranks = [rank for batch in trainer.get_train_dataloader() for rank in batch["columns"]["rank"]]
        assert ranks == list(range(8))
