"""Every setting that is inherited from transformers' TrainingArguments, and methods of its Trainer: used, or refused.

A field that is in neither list is new in transformers, and a test says so: try it, or refuse it.
Leaves out: settings of PPO and rules on numbers (config.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from transformers import Trainer

from trl_rewards_plugin.errors import InputError


class Refused(NamedTuple):
    """A setting that PPO does not follow.

    Attributes:
        neutral: the values that ask for nothing.
        reason: completes "<name> left out: ...".
        next_step: what to use instead.
    """

    neutral: tuple[Any, ...]
    reason: str
    next_step: str = "leave it out"


_OFF = (None, False)
_DECODES = (
    "evaluation decodes texts and scores them",
    "leave it out; per_device_eval_batch_size and eval_generation_kwargs are what evaluation reads",
)
_COUNTS = ("its count is of another task's inputs", "read tokens/queries_len_mean in the log")
_BY_LENGTH = "mini-batches hold prompts of like length already"
_REFUSED = {
    "auto_find_batch_size": Refused(
        _OFF,
        "a rollout that failed halfway would be joined to the next one",
        "lower per_device_train_batch_size and raise gradient_accumulation_steps",
    ),
    "average_tokens_across_devices": Refused((True,), "losses are always means over all processes"),
    "batch_eval_metrics eval_use_gather_object prediction_loss_only": Refused(_OFF, *_DECODES),
    "eval_accumulation_steps": Refused((None,), *_DECODES),
    "eval_do_concat_batches": Refused((True,), *_DECODES),
    "include_for_metrics": Refused((None, []), *_DECODES),
    "bf16_full_eval fp16_full_eval": Refused(
        _OFF, "evaluation computes as training does", "leave it out; bf16=True computes evaluation in bfloat16 too"
    ),
    "dataloader_drop_last": Refused((True,), "every rollout has rollout_batch_size episodes"),
    "debug": Refused((None, "", []), "underflow_overflow reads modules that PPO calls by part"),
    "do_predict": Refused(_OFF, "there is no predict()", "use evaluate(dataset)"),
    "group_by_length": Refused(_OFF, _BY_LENGTH),  # before transformers 5
    "length_column_name": Refused((None, "length"), _BY_LENGTH),
    "train_sampling_strategy": Refused(
        (None, "random", "sequential"), _BY_LENGTH, "leave it out, or set 'sequential'"
    ),
    "include_num_input_tokens_seen": Refused((None, False, "no"), *_COUNTS),
    "include_tokens_per_second": Refused(_OFF, *_COUNTS),
    "label_names label_smoothing_factor": Refused((None, 0.0, []), "PPO learns from rewards and has no labels"),
    "liger_kernel_config use_liger_kernel torch_compile torch_compile_backend torch_compile_mode": Refused(
        (None, False, {}), "the wrapped policy would not get it", "leave it out; see cuda_graphs"
    ),
    "neftune_noise_alpha": Refused(
        (None,), "noise in the embeddings would make the sampled policy another than the scored one"
    ),
    "parallelism_config": Refused((None,), "rollouts are split over processes by rows", "use DDP, FSDP2 or DeepSpeed"),
    "remove_unused_columns": Refused(_OFF, "rewards are given the columns of the dataset"),
    "torch_empty_cache_steps": Refused(
        (None,), "the device's memory is kept for the next rollout", "leave it out; lower per_device_train_batch_size"
    ),
    "use_cache": Refused(_OFF, "sampling always uses the key-value cache, and scoring never"),
}
REFUSED = {name: refused for names, refused in _REFUSED.items() for name in names.split()}

# Read by the Trainer, or by the parts of it that are overridden here; tests/ppo/checks tries each.
_USED = """
    output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps warmup_ratio optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    optim_target_modules gradient_accumulation_steps max_grad_norm bf16 fp16 tf32 activation_checkpointing
    activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs logging_strategy
    logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level log_level_replica logging_dir
    disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy
    eval_steps eval_delay per_device_eval_batch_size eval_on_start save_only_model save_strategy save_steps
    save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id
    hub_strategy hub_always_push hub_revision load_best_model_at_end metric_for_best_model greater_is_better
    ignore_data_skip restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu
    accelerator_config dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order ddp_find_unused_parameters
    ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed
    skip_memory_metrics do_train do_eval resume_from_checkpoint local_rank
    """
USED = frozenset(_USED.split())

# Their steps are the Trainer's own training_step, which PPO replaces, or its backward pass.
_OPTIMIZERS = ("lomo", "adalomo", "schedule_free", "layerwise")


def check_inherited(config: Any) -> None:
    """Refuses inherited settings that would do nothing, or something else than they say.

    Raises:
        InputError: names the setting and what to use instead.
    """
    for name, refused in REFUSED.items():
        value = getattr(config, name, refused.neutral[0])
        if value not in refused.neutral:
            raise InputError(f"{name} left out: {refused.reason}", f"{name}={value!r}", refused.next_step)
    optimizer = str(getattr(config.optim, "value", config.optim))
    for kind in _OPTIMIZERS:
        if kind in optimizer:
            raise InputError("an optimizer with plain steps", f"optim={optimizer!r}", "use 'adamw_torch' or another")


def check_accelerator(config: Any) -> None:
    """Refuses settings of accelerate's loader under which processes would not have prompts of their own."""
    for name in ("dispatch_batches", "split_batches"):
        if getattr(config.accelerator_config, name, None):
            expected = f"accelerator_config without {name}: each process reads its own prompts"
            raise InputError(expected, f"{name}=True", f"leave {name} out")


def check_metric(config: Any) -> None:
    """Refuses to choose by a metric that no evaluation has: PPO has no `eval_loss`."""
    schedule = str(getattr(config.lr_scheduler_type, "value", config.lr_scheduler_type))
    by_metric = {
        "load_best_model_at_end=True": config.load_best_model_at_end,
        "lr_scheduler_type='reduce_lr_on_plateau'": schedule == "reduce_lr_on_plateau",
        "save_strategy='best'": str(getattr(config.save_strategy, "value", config.save_strategy)) == "best",
    }
    asked = [name for name, on in by_metric.items() if on]
    if asked and config.metric_for_best_model in (None, "loss", "eval_loss"):
        raise InputError(
            "metric_for_best_model, a metric of evaluate(), to choose by",
            f"{asked[0]} with metric_for_best_model={config.metric_for_best_model!r}",
            "set metric_for_best_model='reward'",
        )


def _refused_method(name: str, next_step: str) -> Callable[..., NoReturn]:
    def method(self: Trainer, *args: Any, **kwargs: Any) -> NoReturn:
        raise InputError("a method that PPO has", f"{name}()", next_step)

    method.__name__ = name
    method.__doc__ = f"Refused: {next_step}."
    return method


_DECODE = "use evaluate(dataset) for metrics, or generate(queries) for responses"
REFUSED_METHODS = {
    "predict": _DECODE,
    "evaluation_loop": _DECODE,
    "prediction_step": _DECODE,
    "get_test_dataloader": _DECODE,
    "hyperparameter_search": "make one trainer for each setting, for example in a function that optuna calls",
    "compute_loss": "call step(queries, responses, scores), or update(collect(batch))",
}


class WithoutRefusedMethods:
    """The methods of the Trainer that PPO has no use for, each of which says what to call instead."""

    predict, evaluation_loop, prediction_step, get_test_dataloader, hyperparameter_search, compute_loss = (
        _refused_method(name, step) for name, step in REFUSED_METHODS.items()
    )
