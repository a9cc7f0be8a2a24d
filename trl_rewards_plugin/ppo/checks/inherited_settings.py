"""Settings inherited from transformers' TrainingArguments, and methods of its Trainer, that PPO refuses by name.

A field that is neither refused here nor tried in the test is new in transformers, and the test says so.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from trl_rewards_plugin.errors import InputError


class Refused(NamedTuple):
    """A setting that PPO does not follow."""

    neutral: tuple[Any, ...]  # values that ask for nothing
    reason: str  # completes "<name> left out: ..."
    next_step: str = "leave it out"


_OFF = (None, False)
_DECODES = (
    "evaluation decodes texts and scores them",
    "leave it out; per_device_eval_batch_size and eval_generation_kwargs are what evaluation reads",
)
_COUNTS = ("it counts the inputs of another task", "read tokens/queries_len_mean in the log")
_BY_LENGTH = "mini-batches already hold prompts of similar length"
_RESUMES = "set save_steps: a run that is killed resumes from its last checkpoint as if nothing had happened"
_SMALLER = "lower per_device_train_batch_size and raise gradient_accumulation_steps"
_NOISE = "noise in the embeddings would make the sampled policy differ from the scored one"
_PROJECTED = "GaLore's and APOLLO's projections are untried with PPO"
_BFLOAT16 = "leave it out; bf16=True computes evaluation in bfloat16 too"
_BF16_ITSELF = "leave fp16 out: bf16 is switched on automatically if the GPU supports it"
_SEQUENTIAL = "leave it out, or set 'sequential'"
_KEPT = "the device's memory is kept for the next rollout"
_REFUSED = {
    "auto_find_batch_size": Refused(_OFF, "a rollout that failed halfway would be joined to the next one", _SMALLER),
    "average_tokens_across_devices": Refused((True,), "losses are always means over all processes"),
    "batch_eval_metrics eval_use_gather_object prediction_loss_only": Refused(_OFF, *_DECODES),
    "eval_accumulation_steps": Refused((None,), *_DECODES),
    "eval_do_concat_batches": Refused((True,), *_DECODES),
    "include_for_metrics": Refused((None, []), *_DECODES),
    "bf16_full_eval fp16_full_eval": Refused(_OFF, "evaluation computes as training does", _BFLOAT16),
    "dataloader_drop_last": Refused((True,), "every rollout has rollout_batch_size episodes"),
    "debug": Refused((None, "", []), "underflow_overflow reads modules that PPO calls by part"),
    "enable_jit_checkpoint": Refused(_OFF, "it may save in the middle of a rollout's updates", _RESUMES),
    "optim_target_modules": Refused((None,), _PROJECTED, "pass peft_config to save memory"),
    "do_predict": Refused(_OFF, "there is no predict()", "use evaluate(dataset)"),
    "fp16": Refused(_OFF, "T5 and others overflow in it", _BF16_ITSELF),
    "length_column_name": Refused((None, "length"), _BY_LENGTH),
    "train_sampling_strategy": Refused((None, "random", "sequential"), _BY_LENGTH, _SEQUENTIAL),
    "include_num_input_tokens_seen": Refused((None, False, "no"), *_COUNTS),
    "include_tokens_per_second": Refused(_OFF, *_COUNTS),
    "label_names label_smoothing_factor": Refused((None, 0.0, []), "PPO learns from rewards and has no labels"),
    "liger_kernel_config use_liger_kernel torch_compile torch_compile_backend torch_compile_mode": Refused(
        (None, False, {}), "the wrapped policy would not get it", "leave it out; see cuda_graphs"
    ),
    "neftune_noise_alpha": Refused((None,), _NOISE),
    "parallelism_config": Refused((None,), "rollouts are split over processes by rows", "use DDP, FSDP2 or DeepSpeed"),
    "remove_unused_columns": Refused(_OFF, "rewards are given the columns of the dataset"),
    "torch_empty_cache_steps": Refused((None,), _KEPT, "leave it out; lower per_device_train_batch_size"),
    "use_cache": Refused(_OFF, "sampling always uses the key-value cache, and scoring never"),
}
REFUSED = {name: refused for names, refused in _REFUSED.items() for name in names.split()}

# Their steps are the Trainer's own training_step, which PPO replaces, or its backward pass.
_OPTIMIZERS = ("lomo", "adalomo", "schedule_free", "layerwise", "galore", "apollo")
_READ_OPTIM_ARGS = (
    *("sgd", "adagrad", "rmsprop", "anyprecision", "ademamix", "stable_adamw", "grokadamw", "torch_4bit"),
    "torch_8bit",
)


def check_inherited(config: Any) -> None:
    """Refuses by name inherited settings that would do nothing, or something else than they say."""
    for name, refused in REFUSED.items():
        value = getattr(config, name, refused.neutral[0])
        if value not in refused.neutral:
            raise InputError(f"{name} left out: {refused.reason}", f"{name}={value!r}", refused.next_step)
    optimizer = str(getattr(config.optim, "value", config.optim))
    for kind in _OPTIMIZERS:
        if kind in optimizer:
            raise InputError("an optimizer with plain steps", f"optim={optimizer!r}", "use 'adamw_torch' or another")
    if config.optim_args and not any(kind in optimizer for kind in _READ_OPTIM_ARGS):
        expected, found = f"no optim_args, which {optimizer} does not read", f"optim_args={config.optim_args!r}"
        raise InputError(expected, found, "leave it out, or set adam_beta1 and others")


def check_prepared(config: Any) -> None:
    """Likewise of settings as transformers prepared them: loaders and metrics that PPO cannot have."""
    for name in ("dispatch_batches", "split_batches"):
        if getattr(config.accelerator_config, name, None):
            expected = f"accelerator_config without {name}: each process reads its own prompts"
            raise InputError(expected, f"{name}=True", f"leave {name} out")
    for kind in ("save", "eval", "logging"):
        strategy, steps = (getattr(config, f"{kind}_{what}") for what in ("strategy", "steps"))
        as_logging = kind == "eval" and steps == 0
        by_steps = str(getattr(strategy, "value", strategy)) == "steps" and not as_logging
        if by_steps and steps is not None and steps <= 0:
            step = f"to turn it off: --{kind}_strategy no, or {kind}_strategy='no'"
            raise InputError(f"{kind}_steps above 0", f"{kind}_steps={steps:g}", step)
    schedule = str(getattr(config.lr_scheduler_type, "value", config.lr_scheduler_type))
    by_metric = {
        "load_best_model_at_end=True": config.load_best_model_at_end,
        "lr_scheduler_type='reduce_lr_on_plateau'": schedule == "reduce_lr_on_plateau",
        "save_strategy='best'": str(getattr(config.save_strategy, "value", config.save_strategy)) == "best",
    }
    asked = [name for name, on in by_metric.items() if on]
    if asked and config.metric_for_best_model in (None, "loss", "eval_loss"):
        found = f"{asked[0]} with metric_for_best_model={config.metric_for_best_model!r}"
        step = "set metric_for_best_model='reward'"
        raise InputError("metric_for_best_model, a metric of evaluate(), to choose by", found, step)


def _refused_method(name: str, next_step: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
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
