"""Rules on settings: how those beside the fields of config.py are held, and what generation may be asked for.

Needs no torch: `trl-rewards train` asks before that is loaded.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args

from trl_rewards_plugin.errors import InputError, did_you_mean


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
Weights = Annotated[
    list[float] | None,
    Rule("of finite numbers", lambda weights: all(map(math.isfinite, weights))),
    Rule("of which at least one is not 0", any),
]

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
NEUTRAL_GENERATION = {name: (None, neutral) for names, neutral in _NEUTRAL for name in names.split()}
# Generation settings that have a field of their own in the config.
FIELD_INSTEAD = {
    "temperature": "temperature",
    "max_new_tokens": "response_length",
    "max_length": "response_length",
    "min_new_tokens": "min_new_tokens",
    "min_length": "min_new_tokens",
    "suppress_tokens": "suppress_tokens",
}


def without_rules(annotation: Any) -> Any:
    """The type that `Annotated` gives rules to, or `annotation` itself."""
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def check_fields(config: Any, owner: type) -> None:
    """Refuses settings that break the rule in their annotation, or are not among their choices.

    Args:
        owner: the dataclass whose own fields are checked; those that it inherits check themselves.
    """
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
    optional = type(None) in get_args(without_rules(annotation))
    suffix = "" if not optional else ", or unset" if default is None else ", or None"
    for rule in getattr(annotation, "__metadata__", ()):
        if not (optional if value is None else rule.holds(value)):
            raise InputError(f"{name} {rule.expected}{suffix}", f"{name}={value!r}", f"change {name}")


def check(config: Any, name: str, holds: bool, expected: str) -> None:
    """Refuses one setting unless its rule holds."""
    if not holds:
        raise InputError(f"{name} {expected}", f"{name}={getattr(config, name)!r}", f"change {name}")


def check_unused(config: Any, owner: type, names: Iterable[str], by: str) -> None:
    """Refuses settings that would be ignored; left at the owner's default, or off where that is unset, they pass."""
    for name in names:
        value, default = getattr(config, name), getattr(owner, name)
        check(config, name, value == default or (default is None and not value), f"left out: {by} does not use it")


def check_sampling_settings(asked: dict[str, Any], also_neutral: Mapping[str, tuple[Any, ...]] = {}) -> None:
    """Refuses by name the generation settings under which the sampled policy would not be the scored one.

    Args:
        also_neutral: further values that ask for nothing, by name.
    """
    neutral = {**also_neutral, **NEUTRAL_GENERATION}
    for name, value in asked.items():
        if value in neutral.get(name, ()):
            continue
        step = f"leave {name} out; evaluation may use it through eval_generation_kwargs"
        if instead := FIELD_INSTEAD.get(name):
            expected, step = f"{instead} as a field of the config", f"set Seq2SeqPPOConfig({instead}=...) instead"
        elif name not in neutral:
            expected = "generation settings known to leave the sampled distribution as it is"
        else:
            why = "PPO must score the very distribution that it samples from"
            expected = f"{name} left out or neutral ({neutral[name][-1]!r}), because {why}"
            step += "; to sharpen sampling lower `temperature`"
        raise InputError(expected, f"{name}={value!r}", step)
