"""Means over processes. Leaves out: tensors, which accelerate reduces."""

from accelerate.utils import gather_object


def weighted_means(parts: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Means by name of all processes' (weight, values); a name may be missing in some of them."""
    sums: dict[str, list[float]] = {}
    for weight, values in gather_object(parts):
        for name, value in values.items():
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += weight * value
            total[1] += weight
    return {name: sums[name][0] / sums[name][1] for name in sorted(sums)}
