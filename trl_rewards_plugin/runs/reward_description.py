"""A run's reward as its record and its card describe it: the components, and how they become one number."""

from collections.abc import Mapping, Sequence
from typing import Any

from trl_rewards_plugin.runs.public_names import public_name, public_part

WEIGHTED_SUM = "weighted_sum"


def describe_reward(reward: Any) -> list[dict[str, Any]]:
    """One dict a component, with at least `name` and `weight`."""
    if hasattr(reward, "describe"):
        return [dict(part) for part in reward.describe()]
    model = getattr(getattr(reward, "config", None), "_name_or_path", None)
    if model:  # a reward model, as TRL takes it: the first logit of its sequence classifier
        return [{"name": public_name(model), "weight": 1.0, "model": model, "pair": "prompt"}]
    return [{"name": getattr(reward, "__name__", type(reward).__name__), "weight": 1.0}]


def public_parts(reward: Any) -> list[dict[str, Any]]:
    """Likewise, without this machine's paths."""
    return [public_part(part) for part in describe_reward(reward)]


def reward_record(reward: Any) -> dict[str, Any]:
    """For `made_of`: `rewards`, each as it is described but without this machine's paths, and `aggregation`."""
    aggregation, coefficient = _combined_by(reward)
    further = {} if coefficient is None else {"disagreement_coef": coefficient}
    return {
        "rewards": public_parts(reward), "aggregation": None if aggregation == WEIGHTED_SUM else aggregation, **further
    }  # fmt: skip


def _combined_by(reward: Any) -> tuple[str, float | None]:
    return getattr(reward, "aggregation", None) or WEIGHTED_SUM, getattr(reward, "disagreement_coef", None)


def formula_of(reward: Any) -> str:
    """How a reward's components become one number; see `reward_formula`."""
    aggregation, coefficient = _combined_by(reward)
    return reward_formula(describe_reward(reward), aggregation, disagreement_coef=coefficient)


def reward_formula(
    described: Sequence[Mapping[str, Any]],
    aggregation: str = WEIGHTED_SUM,
    times: str = "x",
    disagreement_coef: float | None = None,
) -> str:
    """`1 x acceptability + 0.5 x neutrality`, and likewise for the other aggregations of `MultiClassifierReward`."""
    targets = [f"mean {part['name']} {_target(part['constraints'])}" for part in described if "constraints" in part]
    if targets:
        objective = reward_formula([part for part in described if "constraints" not in part], aggregation, times)
        return f"{objective}, with {' and '.join(targets)}"
    terms = [f"{part['weight']:g} {times} {part['name']}" for part in described]
    if aggregation == WEIGHTED_SUM:
        return " + ".join(terms)
    weights = f"{sum(part['weight'] for part in described):g}"
    if aggregation in ("weighted_mean", "mean_minus_std"):
        coefficient = "" if disagreement_coef is None else f"{disagreement_coef:g} {times} "
        less = f" less {coefficient}their disagreement" if aggregation == "mean_minus_std" else ""
        return f"({' + '.join(terms)}) / {weights}{less}"
    if aggregation == "minimum":
        # A weight of 0 leaves a reward out.
        kept = [term for term, part in zip(terms, described, strict=True) if part["weight"]]
        return f"the minimum of {', '.join(kept)}"
    if aggregation == "geometric_mean":
        powers = f" {times} ".join(f"{part['name']}^{part['weight']:g}" for part in described)
        return f"({powers})^(1 / {weights})"
    raise ValueError(f"no formula for the aggregation {aggregation!r}")


def _target(bounds: Mapping[str, float]) -> str:
    words = {"min": "at least", "max": "at most"}
    return " and ".join(f"{words[end]} {bounds[end]:g}" for end in words if end in bounds)


def targets_in_words(targets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """`targets` of metrics.json, each as a line: "acceptability at least 0.3: mean 0.352, met by 0.052"."""
    lines = []
    for name, found in targets.items():
        mean, slack = found["mean"], found["slack"]
        reached = "missed, nothing was scored"
        if mean is not None:
            reached = f"mean {mean:.3f}, {'missed' if slack < 0 else 'met'} by {abs(slack):.3f}"
        lines.append(f"{name} {_target(found)}: {reached}")
    return lines
