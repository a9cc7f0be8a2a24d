"""How several rewards become one number, as a formula for a reader. Leaves out the maths (`rewards/combine.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WEIGHTED_SUM = "weighted_sum"


def reward_formula(described: Sequence[Mapping[str, Any]], aggregation: str = WEIGHTED_SUM, times: str = "x") -> str:
    """`1 x acceptability + 0.5 x neutrality`, and likewise for the other aggregations of `MultiClassifierReward`.

    Args:
        described: Each with `name`, as it is to be shown, and `weight`.
        aggregation: "weighted_sum", "weighted_mean", "minimum" or "geometric_mean".
        times: The sign of multiplication.

    Raises:
        ValueError: another aggregation.
    """
    terms = [f"{part['weight']:g} {times} {part['name']}" for part in described]
    if aggregation == WEIGHTED_SUM:
        return " + ".join(terms)
    weights = f"{sum(part['weight'] for part in described):g}"
    if aggregation == "weighted_mean":
        return f"({' + '.join(terms)}) / {weights}"
    if aggregation == "minimum":
        # A weight of 0 leaves a reward out.
        kept = [term for term, part in zip(terms, described, strict=True) if part["weight"]]
        return f"the least of {', '.join(kept)}"
    if aggregation == "geometric_mean":
        powers = f" {times} ".join(f"{part['name']}^{part['weight']:g}" for part in described)
        return f"({powers})^(1 / {weights})"
    raise ValueError(f"no formula for the aggregation {aggregation!r}")
