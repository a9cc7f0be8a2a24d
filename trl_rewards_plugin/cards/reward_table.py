"""The rewards of a card as a table and a formula: each judge, what is done to its scores, how they are combined."""

from collections.abc import Mapping, Sequence
from typing import Any

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.markdown import code, escape, link, table
from trl_rewards_plugin.runs.reward_description import reward_formula
from trl_rewards_plugin.text import MINUS, number

TIMES = "\N{MULTIPLICATION SIGN}"
# Keys of a described reward that have a column of their own, or mean nothing to a reader.
_NOT_SETTINGS = (
    "name", "weight", "function", "metric", "label", "score_type", "revision", "pair", "normalization", "clip",
    "weight_schedule", "constraints",
)  # fmt: skip


def rewards_as_table(rewards: Sequence[Mapping[str, Any]]) -> str:
    """Each reward with its judge, label, weight and revision; columns without content are left out."""
    rows = []
    for part in rewards:
        label = code(part["label"]) if part.get("label") is not None else ""
        score = escape(part.get("score_type") or "") + (" of prompt and output" if part.get("pair") else "")
        adjusted = "; ".join(_adjustments(part))
        weight = "learnt" if part.get("constraints") else f"{part['weight']:g}"
        rows.append([escape(part["name"]), weight, _judge(part), label, score, adjusted])
    head = ["Reward", "Weight", "Judge", "Label", "Score", "Adjusted"]
    kept = [index for index in range(len(head)) if index < 3 or any(row[index] for row in rows)]
    return table([head[index] for index in kept], [[row[index] for index in kept] for row in rows], {1})


def rewards_as_formula(data: RewardModelCardData) -> str:
    """How the rewards become one number."""
    named = [{**part, "name": escape(part["name"])} for part in data.rewards]
    adjusted = ", of the adjusted scores" if any(map(_adjustments, data.rewards)) else ""
    return reward_formula(named, data.aggregation, TIMES, data.disagreement_coef) + adjusted


def evaluation_scale(data: RewardModelCardData) -> str:
    """By what evaluations during training measured, where scale or weights moved meanwhile; else ""."""
    used = []
    if any(part.get("normalization") == "zscore" for part in data.rewards):
        scales = [
            f"{escape(name)} mean {number(mean)}, standard deviation {number(std)}"
            for name, (mean, std) in data.evaluation_scales.items()
        ]
        used.append("the scale of the first one" + (f" ({'; '.join(scales)})" if scales else ""))
    if any(part.get("weight_schedule") for part in data.rewards):
        used.append("the weights above without their schedule")
    return f" Evaluations during training used {' and '.join(used)}, so that they can be compared." if used else ""


def _judge(part: Mapping[str, Any]) -> str:
    """What gives the score: a model with its revision, or a function with its settings."""
    if part.get("model"):
        at = f" at {code(part['revision'])}" if part.get("revision") else ""
        return link(str(part["model"])) + at
    source = part.get("function") or part.get("metric")
    if source is None:
        return "a function"
    given = {key: value for key, value in part.items() if key not in _NOT_SETTINGS and value is not None}
    settings = ", ".join(f"{escape(key)} {escape(value)}" for key, value in given.items())
    return code(source) + (f" ({settings})" if settings else "")


def _adjustments(part: Mapping[str, Any]) -> list[str]:
    """What is done to a score before it is weighted, and to the weight during training."""
    steps = []
    scale = part.get("normalization")
    if isinstance(scale, Mapping):
        steps.append(f"(score {MINUS} {number(scale['mean'], 'g')}) / {number(scale['scale'], 'g')}")
    elif scale:
        steps.append("running z-score")
    if part.get("clip"):
        low, high = (number(end, "g") for end in part["clip"])
        steps.append(f"clipped to {low} ... {high}")
    if part.get("weight_schedule"):
        points = (f"{factor:g} at {100 * place:g} %" for place, factor in part["weight_schedule"].items())
        steps.append(f"weight {TIMES} {', '.join(points)} of training")
    return steps
