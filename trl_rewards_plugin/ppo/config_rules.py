"""Rules on settings, one or several together, before torch is loaded. Leaves out: the settings (config.py)."""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.ppo.maths import methods
from trl_rewards_plugin.ppo.maths.methods import ESTIMATORS, KL_ESTIMATORS, OBJECTIVES


@dataclass(frozen=True)
class Rule:
    """What a setting must be; it stands in the annotation of its field."""

    expected: str  # completes "<name> ...", for example "at least 1"
    holds: Callable[[Any], bool]  # asked of a value; never of None where the field's type allows that


Positive = Annotated[float, Rule("above 0", lambda value: value > 0)]
PositiveOrNone = Annotated[float | None, Rule("above 0", lambda value: value > 0)]
NotNegative = Annotated[float, Rule("0 or more", lambda value: 0 <= value < math.inf)]
NotNegativeOrNone = Annotated[float | None, Rule("0 or more", lambda value: 0 <= value < math.inf)]
Fraction = Annotated[float, Rule("from 0 to 1", lambda value: 0 <= value <= 1)]
Rollouts = Annotated[int, Rule("at least 1, or -1 for unset", lambda value: value >= 1 or value == -1)]
Count = Annotated[int, Rule("at least 1", lambda value: value >= 1)]
CountOrNone = Annotated[int | None, Rule("at least 1", lambda value: value >= 1)]
CountOrZero = Annotated[int, Rule("0 or more", lambda value: value >= 0)]
CountZeroOrNone = Annotated[int | None, Rule("0 or more", lambda value: value >= 0)]
Penalty = Annotated[float | None, Rule("0 or more, as it is subtracted", lambda value: value >= 0)]
Share = Annotated[float | None, Rule("from 0 to below 1", lambda share: 0 <= share < 1)]
_FINITE = Rule("of finite numbers", lambda weights: all(map(math.isfinite, weights)))
Weights = Annotated[list[float] | None, _FINITE, Rule("of which at least one is not 0", any)]

ALARMS = ("kl", "entropy", "equal_responses", "unended_responses", "held_out_reward")

# What generation settings must be for softmax(logits / temperature) to be the sampled distribution.
_NEUTRAL: list[tuple[str, Any]] = [
    ("num_beams num_beam_groups", 1),
    ("do_sample", True),
    ("top_k no_repeat_ngram_size encoder_no_repeat_ngram_size", 0),
    ("min_p epsilon_cutoff eta_cutoff penalty_alpha", 0.0),
    ("top_p typical_p repetition_penalty encoder_repetition_penalty length_penalty guidance_scale", 1.0),
    ("forced_bos_token_id forced_eos_token_id bad_words_ids", None),
]
_NEUTRAL_GENERATION = {name: (None, neutral) for names, neutral in _NEUTRAL for name in names.split()}
# Generation settings that have a field of their own in the config.
_FIELD_INSTEAD = {
    **{name: name for name in ("temperature", "min_new_tokens", "suppress_tokens")},
    **{"max_new_tokens": "response_length", "max_length": "response_length", "min_length": "min_new_tokens"},
}

# Names in other libraries and in TRL's PPO -> ours (README.md has the whole table).
_RENAMED = {
    "batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs", "init_kl_coef": "kl_coef",
    "lr": "learning_rate", "max_new_tokens": "response_length", "model_name": "model", "model_name_or_path": "model",
    "ppo_epochs": "num_ppo_epochs",
}  # fmt: skip
_OF_GENERATE = ("do_sample", "length_penalty", "no_repeat_ngram_size", "num_beams")
HINTS = {old: f"here it is called {{}}{new}" for old, new in _RENAMED.items()} | dict.fromkeys(
    _OF_GENERATE,
    "rollouts are sampled at {}temperature, otherwise the KL estimate turns negative; "
    "set how evaluation decodes with {}eval_generation_kwargs",
)
"""Name in other libraries, or of a setting of `generate` -> what to do here; {} is "--" where flags are named."""


def without_rules(annotation: Any) -> Any:
    """The type that `Annotated` gives rules to, or `annotation` itself."""
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def check_fields(config: Any, owner: type) -> None:
    """`check_field` for the own fields of the dataclass `owner`; those that it inherits check themselves."""
    for known in fields(owner):
        annotation = owner.__annotations__.get(known.name)
        if annotation is not None:
            choices = known.metadata.get("choices") or ()
            check_field(known.name, getattr(config, known.name), annotation, known.default, choices)


def check_field(name: str, value: Any, annotation: Any, default: Any = None, choices: Sequence[str] = ()) -> None:
    """Refuses a `value` that breaks a rule in the field's annotation, or is not among its choices."""
    for one in (value if isinstance(value, list) else [value]) if choices else ():
        if one not in choices and not (one is None and default is None):
            step = f"{did_you_mean(one, choices)}set {name} to one of these"
            raise InputError(f"{name} as one of {', '.join(choices)}", f"{name}={value!r}", step)
    kinds = {*(get_args(without_rules(annotation)) or [without_rules(annotation)])}
    optional = type(None) in kinds
    if value is not None and kinds <= {int, float, type(None)}:
        kind = float if float in kinds else int
        if not isinstance(value, numbers.Real if kind is float else numbers.Integral):
            raise InputError(as_number(name, kind, default), f"{name}={value!r}", f"change {name}")
    suffix = "" if not optional else ", or unset" if default is None else ", or None"
    for rule in getattr(annotation, "__metadata__", ()):
        if not (optional if value is None else rule.holds(value)):
            raise InputError(f"{name} {rule.expected}{suffix}", f"{name}={value!r}", f"change {name}")


def as_number(name: str, kind: type[int] | type[float], default: Any = None) -> str:
    """What is expected of a number; its default is the example, if it is one that can be meant."""
    usual = isinstance(default, int | float) and default > 0
    example = default if usual else 4 if kind is int else 0.05
    return f"{name} as a {'whole ' if kind is int else ''}number, such as {example:g}"


def _check(config: Any, *rules: tuple[str, bool, str]) -> None:
    """Refuses the first setting whose rule does not hold; each is a name, whether it holds, and what is expected."""
    for name, holds, expected in rules:
        if not holds:
            raise InputError(f"{name} {expected}", f"{name}={getattr(config, name)!r}", f"change {name}")


def check_sampling_settings(asked: dict[str, Any], also_neutral: Mapping[str, tuple[Any, ...]] = {}) -> None:
    """Refuses by name settings, unless at a neutral value, by which the sampled policy is not the scored one."""
    neutral = {**also_neutral, **_NEUTRAL_GENERATION}
    for name, value in asked.items():
        if value in neutral.get(name, ()):
            continue
        step = f"leave {name} out; evaluation may use it through eval_generation_kwargs"
        if instead := _FIELD_INSTEAD.get(name):
            expected, step = f"{instead} as a field of the config", f"set Seq2SeqPPOConfig({instead}=...) instead"
        elif name not in neutral:
            expected = "generation settings known to leave the sampled distribution as it is"
        else:
            why = "PPO must score the very distribution that it samples from"
            expected = f"{name} left out or neutral ({neutral[name][-1]!r}), because {why}"
            step += "; to sharpen sampling lower `temperature`"
        raise InputError(expected, f"{name}={value!r}", step)


class DerivedSettings:
    """Properties of whatever holds the settings; batch sizes under TRL's names, here read-only."""

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
        return bool(self.multi_objective_aggregation == "normalize_then_sum")

    @property
    def frozen_encoder(self: Any) -> bool:
        return self.freeze_encoder or self.num_layers_unfrozen is not None

    @property
    def checkpoints_activations(self: Any) -> bool:
        """Whether gradient checkpointing is on, by the Trainer's name since transformers 5.23 or the one before."""
        return any(getattr(self, name, False) for name in ("activation_checkpointing", "gradient_checkpointing"))

    @property
    def prompts_per_rollout(self: Any) -> int:
        """Prompts of a rollout on all processes; each gets `num_generations` responses."""
        return int(self.batch_size // self.num_generations)

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
    unused = [(name, f"objective={config.objective!r}") for name in OBJECTIVES[config.objective].unused]
    for name, by in unused if config.sft_coef else [*unused, ("sft_column", "sft_coef=0")]:
        value, default = getattr(config, name), getattr(defaults, name)
        unset = value == default or (default is None and not value)
        _check(config, (name, unset, f"left out: {by} does not use it"))
    batch, local, generations = config.per_device_train_batch_size, config.local_batch_size, config.num_generations
    units, of_units = (local // generations, "prompts") if config.ranks else (local, "episodes")
    stops_once = config.max_steps <= 0 or config.total_episodes is None
    horizon_fits = not config.adaptive_kl or config.kl_horizon >= config.batch_size
    _check(
        config,
        ("min_new_tokens", config.min_new_tokens < config.response_length, "from 0 to below response_length"),
        ("max_steps", stops_once, "unset where total_episodes is given: both say when to stop"),
        ("kl_horizon", horizon_fits, "of at least one rollout's episodes"),
        ("num_generations", batch % generations == 0, f"that divides per_device_train_batch_size ({batch})"),
    )
    _check_estimators(config)
    if units % config.num_mini_batches:
        rollout = "this process's rollout (per_device_train_batch_size x gradient_accumulation_steps)"
        found = f"num_mini_batches={config.num_mini_batches} for {units} {of_units}"
        step = f"choose num_mini_batches among the divisors of {units}"
        raise InputError(f"num_mini_batches that divides {rollout}", found, step)
    for name in ("generation_kwargs", "eval_generation_kwargs"):
        if not isinstance(getattr(config, name), dict | None):
            raise InputError(f"{name} as a mapping", repr(getattr(config, name)), 'write for example {"top_k": 0}')
    for asked in (config.generation_kwargs or {}, {"top_k": config.top_k, "top_p": config.top_p}):
        check_sampling_settings(asked)


def _check_estimators(config: Any) -> None:
    """Refuses what the estimators of advantages and of the KL cannot do."""
    estimator, sampled_kl = ESTIMATORS[config.advantage_estimator], config.kl_estimator != "full"
    compares, scales, one_by_one = estimator.compares_responses, estimator.scales, config.normalizes_each_reward
    several = config.num_generations >= 2 or not (compares or config.ranks)
    own_scale = config.scale_rewards == "group" or (scales and not one_by_one)
    in_loss = KL_ESTIMATORS[config.kl_estimator].in_loss or not config.use_kl_loss
    not_k1 = "'k3' or 'full' with use_kl_loss: the gradient of k1 is 0 on average and would teach nothing there"
    not_full = f"'k1' or 'k3' in the rewards by which {config.objective} ranks; 'full' has a gradient of its own"
    halves = "off with kl_estimator='full', half of which is in the rewards and half in the loss"
    no_critic = f"unset: {config.advantage_estimator} has no critic"
    _check(
        config,
        ("num_generations", several, f"at least 2 for {methods.NEED_SEVERAL}"),
        ("scale_rewards", own_scale, f"'group', as {methods.SCALING} alone scales"),
        ("multi_objective_aggregation", scales or not one_by_one, f"for {methods.SCALING} alone"),
        ("gamma", config.gamma == 1 or not compares, f"1 for {methods.COMPARING}, which judge whole responses"),
        ("kl_estimator", in_loss, not_k1),
        ("kl_estimator", not config.ranks or config.use_kl_loss or sampled_kl, not_full),
        ("whiten_rewards", not config.whiten_rewards or sampled_kl, halves),
        ("critic_learning_rate", config.has_critic or not config.critic_learning_rate, no_critic),
        ("detach_value_head", config.has_critic or not config.detach_value_head, no_critic),
        ("critic_warmup_steps", config.has_critic or not config.critic_warmup_steps, no_critic),
    )
    if config.has_critic and config.vf_coef == 0:
        expected = (
            f"vf_coef above 0 with advantage_estimator={config.advantage_estimator!r}, whose critic learns by it"
        )
        step = "set advantage_estimator='reinforce', which has no critic, or a small vf_coef"
        raise InputError(expected, "vf_coef=0", step)


def check_held_out_asked(config: Any, held_out: Any) -> None:
    """Refuses settings that name the held-out reward where there is none, or no evaluation that measures it."""
    names = ("metric_for_best_model", "stop_on")
    asked = [name for name in names if "held_out_reward" in (getattr(config, name) or "")]
    unmeasured = "eval_strategy='no'" if config.eval_strategy == "no" else ""
    missing = "no held_out_reward" if held_out is None else unmeasured
    if asked and missing:
        expected = f"evaluations that measure a held_out_reward, as {' and '.join(asked)} names it"
        raise InputError(expected, missing, "pass held_out_reward and set eval_strategy='steps'")
