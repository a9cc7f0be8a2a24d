"""What a user may give as weights, normalization, clip or weight_schedule, brought into one form or refused.

`checked_settings` takes all of them; each other `checked_*` the setting's name for the message and its value. They
raise InputError where something does not fit. Needs no torch: a reward file is checked before that is loaded.
"""

import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean

ZSCORE = "zscore"
AGGREGATION_NAMES = ("weighted_sum", "weighted_mean", "mean_minus_std", "minimum", "geometric_mean")
"""The keys of `aggregate.AGGREGATIONS`."""


def checked_settings(
    names: Sequence[str],
    weights: Sequence[float] | Mapping[str, float] | None,
    aggregation: str,
    normalization: Any = None,
    clip: Any = None,
    weight_schedule: Any = None,
    only_if: Any = None,
    floor: Any = None,
    constraints: Any = None,
    disagreement_coef: Any = None,
) -> dict[str, Any]:
    """The attributes of a `Combination` but for `names`, as the user gave them.

    Raises:
        InputError: one that does not fit, alone or beside the others.
    """
    if aggregation not in AGGREGATION_NAMES:
        step = f"{did_you_mean(aggregation, AGGREGATION_NAMES)}use one of these"
        raise InputError(f"aggregation one of {', '.join(AGGREGATION_NAMES)}", repr(aggregation), step)
    targets = by_name("constraints", constraints, names, checked_target, for_all=False)
    own = {
        "normalization": by_name("normalization", normalization, names, checked_normalization),
        "clip": by_name("clip", clip, names, checked_clip),
        "weight_schedule": by_name("weight_schedule", weight_schedule, names, checked_schedule, for_all=False),
        "only_if": by_name("only_if", only_if, names, checked_gate, for_all=False),
        "floor": by_name("floor", floor, names, checked_floor, for_all=False),
    }
    found = checked_weights(weights, names, targets)
    check_gates(own["only_if"], own["floor"], names)
    check_coefficient(disagreement_coef, aggregation)
    for name in targets:
        beside = {key: values[name] for key, values in own.items() if name in values}
        check_target(name, {"weight": found[list(names).index(name)], **beside}, aggregation)
    if aggregation in ("weighted_mean", "mean_minus_std", "geometric_mean") and min(found) < 0:
        step = "use aggregation='weighted_sum' for a penalty, or score the opposite label"
        raise InputError(f"weights of at least 0 for {aggregation}", f"{found}", step)
    if aggregation == "geometric_mean" and ZSCORE in own["normalization"].values():
        zscore = "normalization='zscore', which turns them into other numbers"
        step = "leave normalization out, or use another aggregation"
        raise InputError("probabilities for geometric_mean", zscore, step)
    if aggregation == "geometric_mean" and not all(0 <= value <= 1 for value in own["floor"].values()):
        raise InputError("a floor in [0, 1] for geometric_mean", f"{own['floor']}", "leave it out for 0")
    coefficient = {"disagreement_coef": disagreement_coef}
    return {"weights": tuple(found), "aggregation": aggregation, **own, "constraints": targets, **coefficient}


def checked_weights(
    weights: Sequence[float] | Mapping[str, float] | None, names: Sequence[str], constrained: Collection[str] = ()
) -> list[float]:
    """One finite float for each name, not all 0; 1.0 each, or 0.0 if `constrained`, where none is given."""
    if weights is None:
        weights = {name: 1.0 for name in names if name not in constrained}
    if isinstance(weights, Mapping):
        weights = _in_order({**dict.fromkeys(constrained, 0.0), **weights}, names)
    if not isinstance(weights, Sequence):
        step = "for example [1.0, 0.5], or a dict by name"
        raise InputError("weights as a list of numbers, one for each reward", repr(weights), step)
    found = list(weights)
    if len(found) != len(names):
        expected = f"{len(names)} weights, one for each reward"
        raise InputError(expected, f"{len(found)}: {found}", "give one weight per reward")
    for weight in found:
        if not _is_finite(weight):
            raise InputError("finite numbers as weights", repr(weight), "replace it; 0.0 only reports a component")
    if not any(found):
        step = "raise one; beside constraints, some reward without one is the objective"
        raise InputError("a weight other than 0, since the total would be 0 for every text", f"{found}", step)
    return [float(weight) for weight in found]


def _in_order(weights: Mapping[str, float], names: Sequence[str]) -> list[float]:
    for name in names:
        if name not in weights:
            raise InputError(f"a weight for {name!r}", ", ".join(map(str, weights)), "give every reward its weight")
    _check_known("weights", weights, names)
    return [weights[name] for name in names]


def _check_known(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            step = f"{did_you_mean(name, names)}give {what} as a dict by reward name"
            raise InputError(f"{what} for rewards of this combination, {', '.join(names)}", repr(name), step)


def by_name(
    what: str, given: Any, names: Sequence[str], check: Callable[[str, Any], Any], *, for_all: bool = True
) -> dict[str, Any]:
    """`given`, one value for every reward or a dict by name, as a dict by name without the Nones.

    Args:
        check: Name of a value and the value -> its one form.
        for_all: Whether one value may stand for every reward.

    Raises:
        InputError: an unknown reward, or as `check`.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if not for_all:
            raise InputError(f"{what} as a dict by reward name", repr(given), f"one or more of {', '.join(names)}")
        return {name: check(what, given) for name in names}
    _check_known(what, given, names)
    return {name: check(f"{what} of {name!r}", given[name]) for name in names if given.get(name) is not None}


def checked_normalization(what: str, value: Any) -> Any:
    """ZSCORE, or a mean and a scale above 0 as floats."""
    if value == ZSCORE:
        return ZSCORE
    if isinstance(value, Mapping) and set(value) == {"mean", "scale"} and all(map(_is_finite, value.values())):
        mean, scale = float(value["mean"]), float(value["scale"])
        if scale > 0:
            return {"mean": mean, "scale": scale}
    expected = f"{what} as {ZSCORE!r}, or as {{'mean': m, 'scale': s}} with finite m and s above 0"
    step = f"{did_you_mean(value, [ZSCORE])}for example {{'reward name': {ZSCORE!r}}}"
    raise InputError(expected, repr(value), step)


def checked_clip(what: str, value: Any) -> tuple[float, float]:
    """(low, high) as floats; either may be infinite."""
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if all(_is_number(end) and not math.isnan(end) for end in value) and low < high:
            return float(low), float(high)
    raise InputError(f"{what} as (low, high) with low below high", repr(value), "for example (-3.0, 3.0)")


def checked_schedule(what: str, value: Any) -> dict[float, float]:
    """{progress: factor} as floats, in the order of progress."""
    if isinstance(value, Mapping) and value:
        numbers = all(map(_is_finite, [*value, *value.values()]))
        if numbers and all(0 <= place <= 1 for place in value) and all(factor >= 0 for factor in value.values()):
            return {float(place): float(factor) for place, factor in sorted(value.items())}
    expected = f"{what} as {{progress: factor}}, progress from 0 to 1, factors of at least 0"
    step = "for example {0.0: 0.0, 0.5: 1.0}, which brings the weight in over the first half of training"
    raise InputError(expected, repr(value), step)


def checked_gate(what: str, value: Any) -> dict[str, float]:
    """{gating reward: threshold} as floats."""
    if isinstance(value, Mapping) and value and all(map(_is_finite, value.values())):
        return {str(name): float(least) for name, least in value.items()}
    step = "for example {'acceptability': 0.0}: where that reward's own score is at least 0"
    raise InputError(f"{what} as {{reward: least score}}", repr(value), step)


def checked_floor(what: str, value: Any) -> float:
    """A finite float."""
    if not _is_finite(value):
        raise InputError(f"{what} as a finite number", repr(value), "leave it out for 0")
    return float(value)


def checked_target(what: str, value: Any) -> dict[str, float]:
    """{"min": least mean score} and, or {"max": greatest} as floats."""
    ends = value if isinstance(value, Mapping) and all(map(_is_finite, value.values())) else {}
    if ends and set(ends) <= {"min", "max"} and ends.get("min", -math.inf) <= ends.get("max", math.inf):
        return {end: float(bound) for end, bound in ends.items()}
    step = "for example {'acceptability': {'min': 0.9}, 'length': {'max': 25}}"
    raise InputError(f"{what} as {{'min': m}}, {{'max': m}} or both, with min not above max", repr(value), step)


def check_target(name: str, settings: Mapping[str, Any], aggregation: str) -> None:
    """Refuses a target, of raw scores in a weighted sum, beside what changes either in the reward's other settings."""
    found = [key for key, value in settings.items() if key != "constraints" and value]
    if found or aggregation != "weighted_sum":
        step = "leave that out; what is meant for other rewards goes into a dict by name"
        found = found or [f"aggregation={aggregation!r}"]
        raise InputError(f"constraints of {name!r} alone, since its weight is learnt", ", ".join(found), step)


def check_coefficient(value: Any, aggregation: str) -> None:
    """Refuses a disagreement_coef that is no number of at least 0, or that the aggregation does not read."""
    if value is not None and (aggregation != "mean_minus_std" or not _is_finite(value) or value < 0):
        expected = "disagreement_coef as a number of at least 0, with aggregation='mean_minus_std'"
        raise InputError(expected, f"{value!r} with {aggregation!r}", "leave it out")


def check_gates(only_if: Mapping[str, Mapping[str, float]], floor: Mapping[str, float], names: Sequence[str]) -> None:
    """Refuses a gate of an unknown reward or of the reward itself, and a floor without a gate."""
    for name, gate in only_if.items():
        _check_known(f"only_if of {name!r}", gate, [other for other in names if other != name])
    for name in floor:
        if name not in only_if:
            raise InputError(f"only_if of {name!r} beside its floor", "no gate", "give only_if, or leave floor out")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
