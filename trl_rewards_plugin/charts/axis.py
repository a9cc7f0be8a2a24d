"""Ranges and ticks of an SVG chart; matplotlib's would make a page that needs nothing else of it start slowly."""

import math
from collections.abc import Sequence


def padded_range(low: float, high: float) -> tuple[float, float]:
    """A range that holds both numbers with a little room, and is never empty."""
    room = 0.05 * (high - low) or 0.5 * max(abs(low), 1.0)
    return low - room, high + room


def nice_ticks(low: float, high: float, most: int = 6, least_step: float = 0.0) -> list[float]:
    """At most `most` and at least one multiple of 1, 2 or 5 times a power of ten, at least `least_step` apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most and step >= least_step:
            break
    return [count * step for count in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Evenly spaced ticks as short as tells them apart: `0.2`, `1,500`, `20k`, `3M`, `2e-06`."""
    largest = max(map(abs, ticks))
    divisor, unit = (1e6, "M") if largest >= 1e6 else (1e3, "k") if largest >= 1e4 else (1.0, "")
    step = (ticks[1] - ticks[0] if len(ticks) > 1 else largest or 1.0) / divisor
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > 4 and largest < 0.01:
        return [f"{tick:.6g}" for tick in ticks]
    labels = [f"{tick / divisor:,.{decimals}f}" for tick in ticks]
    return [label + unit if float(label.replace(",", "")) else "0" for label in labels]
