"""Rules on settings: how those beside the fields of config.py are held, and what generation may be asked for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from trl_rewards_plugin.errors import InputError


@dataclass(frozen=True)
class Rule:
    """What a setting must be; it stands in the annotation of its field."""

    expected: str  # completes "<name> ...", for example "at least 1"
    holds: Callable[[Any], bool]  # asked of a value; never of None where the field's type allows that


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


def check_fields(config: Any, owner: type) -> None:
    """Refuses settings that break the rule in their annotation, or are not among their choices.

    Args:
        owner: the dataclass whose own fields are checked; those that it inherits check themselves.
    """
    for known in fields(owner):
        value, annotation = getattr(config, known.name), owner.__annotations__.get(known.name)
        if annotation is None:
            continue
        rules = [rule for rule in getattr(annotation, "__metadata__", ()) if isinstance(rule, Rule)]
        if choices := known.metadata.get("choices"):
            names = ", ".join(choices)
            several = Rule(f"of names among {names}", set(choices).issuperset)
            rules.append(several if isinstance(value, list) else Rule(f"one of {names}", choices.__contains__))
        kind = annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation
        optional = type(None) in get_args(kind)
        suffix = "" if not optional else ", or unset" if known.default is None else ", or None"
        for rule in rules:
            check(config, known.name, (optional and value is None) or rule.holds(value), rule.expected + suffix)


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
