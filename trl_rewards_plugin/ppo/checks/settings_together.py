"""What settings must be together, and what follows from them: of the config, or of flags before torch is loaded.

Leaves out: what a single setting must be (config_rules.py).
"""

import math
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config_rules import check, check_sampling_settings, check_unused
from trl_rewards_plugin.ppo.maths.methods import (
    COMPARING,
    ESTIMATORS,
    KL_ESTIMATORS,
    NEED_SEVERAL,
    OBJECTIVES,
    SCALING,
)


class DerivedSettings:
    """Properties of whatever holds the settings."""

    @property
    def ranks(self: Any) -> bool:
        """Whether the objective ranks a prompt's responses, instead of estimating advantages."""
        return OBJECTIVES[self.objective].mark_name is not None

    @property
    def has_critic(self: Any) -> bool:
        """Whether advantages are estimated, by an estimator that needs values."""
        return not self.ranks and ESTIMATORS[self.advantage_estimator].needs_critic

    @property
    def initial_kl_coef(self: Any) -> float:
        """`kl_coef`; left unset, the default for this objective."""
        default = 0.0 if "kl_coef" in OBJECTIVES[self.objective].unused else 0.05
        return default if self.kl_coef is None else self.kl_coef

    @property
    def whitens_advantages(self: Any) -> bool:
        """`whiten_advantages`; left unset, the default for this estimator."""
        default = not self.ranks and ESTIMATORS[self.advantage_estimator].whitens_by_default
        return default if self.whiten_advantages is None else self.whiten_advantages

    @property
    def normalizes_each_reward(self: Any) -> bool:
        """Whether rewards are normalised one by one."""
        return bool(self.multi_objective_aggregation == "normalize_then_sum")

    @property
    def frozen_encoder(self: Any) -> bool:
        """Whether the encoder is left as it is, by either setting that says so."""
        return self.freeze_encoder or self.num_layers_unfrozen is not None

    @property
    def checkpoints_activations(self: Any) -> bool:
        """Whether gradient checkpointing is on, by the Trainer's name since transformers 5.23 or the one before."""
        return any(getattr(self, name, False) for name in ("activation_checkpointing", "gradient_checkpointing"))

    @property
    def prompts_per_rollout(self: Any) -> int:
        """Prompts of a rollout on all processes; each gets `num_generations` responses."""
        return int(self.batch_size // self.num_generations)

    # TRL's names for derived numbers, here read-only.
    @property
    def micro_batch_size(self: Any) -> int:
        """Episodes that one process generates and scores at a time."""
        return int(self.per_device_train_batch_size)

    @property
    def local_batch_size(self: Any) -> int:
        """Episodes of a rollout on one process."""
        return int(self.per_device_train_batch_size * self.gradient_accumulation_steps)

    @property
    def batch_size(self: Any) -> int:
        """Episodes of a rollout on all processes."""
        return int(self.local_batch_size * self.world_size)

    rollout_batch_size = batch_size

    @property
    def local_mini_batch_size(self: Any) -> int:
        """Episodes of one optimizer step on one process."""
        return int(self.local_batch_size // self.num_mini_batches)

    @property
    def mini_batch_size(self: Any) -> int:
        """Episodes of one optimizer step on all processes."""
        return int(self.batch_size // self.num_mini_batches)

    @property
    def num_total_batches(self: Any) -> int | None:
        """Rollouts that `total_episodes` makes; None while it is unset."""
        return None if self.total_episodes is None else math.ceil(self.total_episodes / self.batch_size)


def check_together(config: Any, defaults: Any) -> None:
    """Refuses settings that do not fit together or sampling, or are ignored and not as in `defaults`."""
    check_unused(config, defaults, OBJECTIVES[config.objective].unused, f"objective={config.objective!r}")
    check_unused(config, defaults, () if config.sft_coef else ("sft_column",), "sft_coef=0")
    batch, local = config.per_device_train_batch_size, config.local_batch_size
    generations = config.num_generations
    units, of_units = (local // generations, "prompts") if config.ranks else (local, "episodes")
    stops_once = config.max_steps <= 0 or config.total_episodes is None
    horizon_fits = not config.adaptive_kl or config.kl_horizon >= config.batch_size
    for name, holds, expected in (
        ("min_new_tokens", config.min_new_tokens < config.response_length, "from 0 to below response_length"),
        ("max_steps", stops_once, "unset where total_episodes is given: both say when to stop"),
        ("kl_horizon", horizon_fits, "of at least one rollout's episodes"),
        ("num_generations", batch % generations == 0, f"that divides per_device_train_batch_size ({batch})"),
    ):
        check(config, name, holds, expected)
    _check_estimator(config)
    if units % config.num_mini_batches:
        raise InputError(
            "num_mini_batches that divides this process's rollout "
            "(per_device_train_batch_size x gradient_accumulation_steps)",
            f"num_mini_batches={config.num_mini_batches} for {units} {of_units}",
            f"choose num_mini_batches among the divisors of {units}",
        )
    for name in ("generation_kwargs", "eval_generation_kwargs"):
        if not isinstance(getattr(config, name), dict | None):
            raise InputError(f"{name} as a mapping", repr(getattr(config, name)), 'write for example {"top_k": 0}')
    check_sampling_settings(config.generation_kwargs or {})
    check_sampling_settings({"top_k": config.top_k, "top_p": config.top_p})


def check_held_out_asked(config: Any, held_out: Any) -> None:
    """Refuses settings that name the held-out reward where there is none, or no evaluation that measures it."""
    names = ("metric_for_best_model", "stop_on")
    asked = [name for name in names if "held_out_reward" in (getattr(config, name) or "")]
    unmeasured = "eval_strategy='no'" if config.eval_strategy == "no" else ""
    missing = "no held_out_reward" if held_out is None else unmeasured
    if asked and missing:
        expected = f"evaluations that measure a held_out_reward, as {' and '.join(asked)} names it"
        raise InputError(expected, missing, "pass held_out_reward and set eval_strategy='steps'")


def _check_estimator(config: Any) -> None:
    """Refuses what the estimators of advantages and of the KL cannot do."""
    estimator = ESTIMATORS[config.advantage_estimator]
    scales, compares, generations = estimator.scales, estimator.compares_responses, config.num_generations
    fixed_scale = not scales or config.normalizes_each_reward
    no_critic = f"unset: {config.advantage_estimator} has no critic"
    for name, holds, expected in (
        ("num_generations", generations >= 2 or not (compares or config.ranks), f"at least 2 for {NEED_SEVERAL}"),
        ("scale_rewards", config.scale_rewards == "group" or not fixed_scale, f"'group', as {SCALING} alone scales"),
        ("multi_objective_aggregation", scales or not config.normalizes_each_reward, f"for {SCALING} alone"),
        ("gamma", config.gamma == 1 or not compares, f"1 for {COMPARING}, which judge whole responses"),
        (
            "kl_estimator",
            KL_ESTIMATORS[config.kl_estimator].in_loss or not config.use_kl_loss,
            "'k3' or 'full' with use_kl_loss: the gradient of k1 is 0 on average and would teach nothing there",
        ),
        (
            "kl_estimator",
            not config.ranks or config.use_kl_loss or config.kl_estimator != "full",
            f"'k1' or 'k3' in the rewards by which {config.objective} ranks; 'full' has a gradient of its own",
        ),
        (
            "whiten_rewards",
            not config.whiten_rewards or config.kl_estimator != "full",
            "off with kl_estimator='full', half of which is in the rewards and half in the loss",
        ),
        *(
            (name, config.has_critic or not getattr(config, name), no_critic)
            for name in ("critic_learning_rate", "detach_value_head", "critic_warmup_steps")
        ),
    ):
        check(config, name, holds, expected)
    if config.has_critic and config.vf_coef == 0:
        raise InputError(
            f"vf_coef above 0 with advantage_estimator={config.advantage_estimator!r}, whose critic learns by it",
            "vf_coef=0",
            "set advantage_estimator='reinforce', which has no critic, or a small vf_coef",
        )
