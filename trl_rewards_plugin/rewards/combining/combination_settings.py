"""What a user may give as weights, normalization, clip or weight_schedule, brought into one form or refused.

Every refusal is an InputError that names the setting. Needs no torch: a reward file is checked before that is loaded.
"""

import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from trl_rewards_plugin.errors import InputError, check_choice, did_you_mean

ZSCORE = "zscore"
AGGREGATION_NAMES = ("weighted_sum", "weighted_mean", "mean_minus_std", "minimum", "geometric_mean")
"""The keys of `aggregate.AGGREGATIONS`."""


def checked_settings(
    names: Sequence[str],
    weights: Sequence[float] | Mapping[str, float] | None,
    aggregation: str,
    disagreement_coef: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """The fields of a `Combination` but for `names`, settings (see FORMS) being as the user gave them."""
    check_choice("aggregation", aggregation, AGGREGATION_NAMES)
    forms = {what: by_name(what, settings.get(what), names) for what in FORMS}
    own = _checked_weights(weights, names, forms["constraints"])
    for name, gate in forms["only_if"].items():
        check_gate(gate, f"only_if of {name!r}", name, names)
    for name in forms["floor"]:
        if name not in forms["only_if"]:
            raise InputError(f"only_if of {name!r} beside its floor", "no gate", "give only_if, or leave floor out")
    fits = aggregation == "mean_minus_std" and _is_finite(disagreement_coef) and disagreement_coef >= 0
    if disagreement_coef is not None and not fits:
        expected = "disagreement_coef as a number of at least 0, with aggregation='mean_minus_std'"
        raise InputError(expected, f"{disagreement_coef!r} with {aggregation!r}", "leave it out")
    for name in forms["constraints"]:  # of raw scores in a weighted sum: nothing beside them may change either
        others = {what: values.get(name) for what, values in forms.items() if what != "constraints"}
        beside = [key for key, value in {"weight": own[names.index(name)], **others}.items() if value]
        if beside or aggregation != "weighted_sum":
            found = ", ".join(beside) or f"aggregation={aggregation!r}"
            step = "leave that out" + (f" of {name!r}; in Python, give it by name to the others" if beside else "")
            raise InputError(f"constraints of {name!r} alone, since its weight is learnt", found, step)
    if aggregation in ("weighted_mean", "mean_minus_std", "geometric_mean") and min(own) < 0:
        step = "use aggregation='weighted_sum' for a penalty, or score the opposite label"
        raise InputError(f"weights of at least 0 for {aggregation}", f"{own}", step)
    if aggregation == "geometric_mean" and ZSCORE in forms["normalization"].values():
        found = "normalization='zscore', which turns them into other numbers"
        step = "leave normalization out, or use another aggregation"
        raise InputError("probabilities for geometric_mean", found, step)
    if aggregation == "geometric_mean" and not all(0 <= value <= 1 for value in forms["floor"].values()):
        raise InputError("a floor in [0, 1] for geometric_mean", f"{forms['floor']}", "leave it out for 0")
    return {"weights": tuple(own), "aggregation": aggregation, "disagreement_coef": disagreement_coef, **forms}


def _checked_weights(
    weights: Sequence[float] | Mapping[str, float] | None, names: Sequence[str], constrained: Collection[str]
) -> list[float]:
    """One finite float for each name, not all 0; 1.0 each, or 0.0 if `constrained`, where none is given."""
    if weights is None:
        weights = {name: 1.0 for name in names if name not in constrained}
    if isinstance(weights, Mapping):
        given = {**dict.fromkeys(constrained, 0.0), **weights}
        _check_known("weights", given, names)
        if missing := [repr(name) for name in names if name not in given]:
            expected, step = f"a weight for {', '.join(missing)}", "give every reward its weight"
            raise InputError(expected, ", ".join(map(str, given)), step)
        weights = [given[name] for name in names]
    if not isinstance(weights, Sequence):
        step = "for example [1.0, 0.5], or a dict by name"
        raise InputError("weights as a list of numbers, one for each reward", repr(weights), step)
    found = list(weights)
    if len(found) != len(names):
        expected = f"{len(names)} weights, one for each reward"
        raise InputError(expected, f"{len(found)}: {found}", "give one weight per reward")
    for name, weight in zip(names, found, strict=True):
        if not _is_finite(weight):
            expected = f"a finite number as the weight of {name!r}"
            raise InputError(expected, repr(weight), "replace it; 0.0 only reports a component")
    if {*names} == {*constrained}:
        step = "add a reward without constraints, or remove those of one"
        raise InputError("a reward without constraints as the objective", "constraints on every reward", step)
    if not any(found):
        expected = "a weight other than 0, since the total would be 0 for every text"
        raise InputError(expected, f"{found}", "raise the weight of a reward without constraints")
    return [float(weight) for weight in found]


def check_gate(gate: Collection[str], what: str, name: str, names: Sequence[str]) -> None:
    """Refuses a gate, called `what`, by an unknown reward or by the gated one, `name`, itself."""
    if name in gate:
        raise InputError(f"{what} to name another reward", f"{name!r}, that reward itself", "name the reward to pass")
    _check_known(what, gate, names)


def _check_known(what: str, given: Collection[str], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            step = f"{did_you_mean(name, names)}use the names of the rewards"
            raise InputError(f"{what} for rewards of this combination, {', '.join(names)}", repr(name), step)


def by_name(what: str, given: Any, names: Sequence[str]) -> dict[str, Any]:
    """The setting `what`, a dict by name or one value for every reward, as a dict by name without the Nones."""
    form, whose = FORMS[what], " of {!r}"
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if not form.for_all:
            raise InputError(f"{what} as a dict by reward name", repr(given), f"one or more of {', '.join(names)}")
        given, whose = dict.fromkeys(names, given), ""
    _check_known(what, given, names)
    found = {name: form.read(given[name]) for name in names if given.get(name) is not None}
    for name, value in found.items():
        if value is None:
            step = (did_you_mean(given[name], [ZSCORE]) if what == "normalization" else "") + form.step
            raise InputError(f"{what}{whose.format(name)} as {form.expected}", repr(given[name]), step)
    return found


class Form(NamedTuple):
    """How a setting of one reward is given: what reads it (None: it does not fit), words for that, and an example."""

    read: Callable[[Any], Any]
    expected: str
    step: str
    for_all: bool = False  # whether one value may stand for every reward


def _normalization(value: Any) -> Any:
    if value == ZSCORE:
        return ZSCORE
    found = _floats(value) or {}
    return found if found.keys() == {"mean", "scale"} and found["scale"] > 0 else None


def _clip(value: Any) -> tuple[float, float] | None:
    """(low, high) as floats; either may be infinite."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]:
        return float(value[0]), float(value[1])
    return None


def _schedule(value: Any) -> dict[float, float] | None:
    """{progress: factor} as floats, in the order of progress."""
    factors = _floats(value) or {}
    if not factors or not all(_is_finite(place) and 0 <= place <= 1 for place in value) or min(factors.values()) < 0:
        return None
    return {float(place): factor for place, factor in sorted(factors.items())}


def _gate(value: Any) -> dict[str, float] | None:
    found = _floats(value)
    return {str(name): threshold for name, threshold in found.items()} if found else None


def _target(value: Any) -> dict[str, float] | None:
    ends = _gate(value) or {}
    fits = ends and set(ends) <= {"min", "max"} and ends.get("min", -math.inf) <= ends.get("max", math.inf)
    return ends if fits else None


def _floats(value: Any) -> dict[Any, float] | None:
    """A dict of finite numbers with these as floats; None for anything else."""
    fits = isinstance(value, Mapping) and all(map(_is_finite, value.values()))
    return {key: float(number) for key, number in value.items()} if fits else None


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


FORMS = {
    "normalization": Form(
        _normalization, f"{ZSCORE!r}, or as {{'mean': m, 'scale': s}} with finite m and s above 0",
        f"for example {{'reward name': {ZSCORE!r}}}", for_all=True,
    ),
    "clip": Form(_clip, "[low, high] with low below high", "for example [-3, 3]", for_all=True),
    "weight_schedule": Form(
        _schedule, "{progress: factor}, progress from 0 to 1, factors of at least 0",
        "for example {0.0: 0.0, 0.5: 1.0}, which brings the weight in over the first half of training",
    ),
    "only_if": Form(
        _gate, "{reward: minimum score}",
        "for example {'acceptability': 0.0}: where that reward's own score is at least 0",
    ),
    "floor": Form(lambda value: float(value) if _is_finite(value) else None, "a finite number", "leave it out for 0"),
    "constraints": Form(
        _target, "{'min': m}, {'max': m} or both, with min not above max",
        "for example {'acceptability': {'min': 0.9}, 'length': {'max': 25}}",
    ),
}  # fmt: skip
"""Setting -> its form, in the order in which reward files write them."""
