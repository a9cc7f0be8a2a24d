"""What a user may give as weights, normalization, clip or weight_schedule, brought into one form or refused.

Each `checked_*` takes the setting's name for the message and its value, and raises InputError where it does not fit.
"""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean

ZSCORE = "zscore"


def checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """`count` finite floats, not all 0; 1.0 each where `weights` is None."""
    if weights is None:
        return [1.0] * count
    if not isinstance(weights, Sequence):
        raise InputError("weights as a list of numbers, one for each reward", repr(weights), "for example [1.0, 0.5]")
    found = list(weights)
    if len(found) != count:
        raise InputError(f"{count} weights, one for each reward", f"{len(found)}: {found}", "give one weight a reward")
    for weight in found:
        if not _is_finite(weight):
            raise InputError("finite numbers as weights", repr(weight), "replace it; 0.0 only reports a component")
    if not any(found):
        raise InputError("a weight other than 0, since the total would be 0 for every text", f"{found}", "raise one")
    return [float(weight) for weight in found]


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
    for name in given:
        if name not in names:
            step = f"{did_you_mean(name, names)}give {what} as a dict by reward name"
            raise InputError(f"{what} for rewards of this combination, {', '.join(names)}", repr(name), step)
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


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
