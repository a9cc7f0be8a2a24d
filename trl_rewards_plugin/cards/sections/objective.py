"""What the model is, and what it was taught to prefer. Leaves out: how (`training.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.markdown import code, escape, link, table
from trl_rewards_plugin.cards.sections.training import PACKAGE
from trl_rewards_plugin.runs.reward_description import reward_formula
from trl_rewards_plugin.text import MINUS, number

ZSCORE = "zscore"
TIMES = "\N{MULTIPLICATION SIGN}"
# Keys of a described reward that have a place of their own, or say nothing to a reader.
_TOLD = (
    "name", "weight", "function", "metric", "label", "score_type", "revision", "pair", "normalization", "clip",
    "weight_schedule",
)  # fmt: skip


def intro(data: RewardModelCardData) -> str:
    """One sentence on what it is and what it was taught."""
    kind = "encoder-decoder" if data.encoder_decoder else "decoder"
    what = f"{_article(kind)} {kind}"
    what = f"{link(data.base_model)}, {what}," if data.base_model else f"{what.capitalize()},"
    adapter = " Here is the adapter, not the whole model." if data.adapter else ""
    why = " to please reward functions" if data.rewards else ""
    if any(part.get("model") for part in data.rewards):
        why = " to write what text classifiers prefer"
    maker = PACKAGE if data.algorithm == "PPO" else "TRL"
    return f"{what} trained further by {escape(data.algorithm)} with {maker}{why}.{adapter}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def rewards(data: RewardModelCardData) -> str:
    """Each judge with label, weight and revision, what is done to its scores, and how they become one number."""
    if not data.rewards:
        return ""
    rows = []
    for part in data.rewards:
        label = code(part["label"]) if part.get("label") is not None else ""
        score = escape(part.get("score_type") or "") + (" of prompt and output" if part.get("pair") else "")
        rows.append([escape(part["name"]), f"{part['weight']:g}", _judge(part), label, score, _adjustments(part)])
    head = ["Reward", "Weight", "Judge", "Label", "Score", "Adjusted"]
    kept = [index for index in range(len(head)) if index < 3 or any(row[index] for row in rows)]
    named = [{"name": escape(part["name"]), "weight": part["weight"]} for part in data.rewards]
    formula = reward_formula(named, data.aggregation, TIMES)
    adjusted = ", of the adjusted scores" if any(row[-1] for row in rows) else ""
    rows = [[row[index] for index in kept] for row in rows]
    told = f"Reward of an output = {formula}{adjusted}.{_evaluated(data)}"
    return f"{table([head[index] for index in kept], rows, {1})}\n\n{told}"


def _evaluated(data: RewardModelCardData) -> str:
    """By what evaluations measured, where scale or weights moved in training."""
    told = []
    if any(part.get("normalization") == ZSCORE for part in data.rewards):
        scales = [
            f"{escape(name)} mean {number(mean)}, standard deviation {number(std)}"
            for name, (mean, std) in data.evaluation_scales.items()
        ]
        told.append("the scale of the first one" + (f" ({'; '.join(scales)})" if scales else ""))
    if any(part.get("weight_schedule") for part in data.rewards):
        told.append("the weights above without their schedule")
    return f" Evaluations during training used {' and '.join(told)}, so that they can be compared." if told else ""


def _judge(part: Mapping[str, Any]) -> str:
    """What gives the score: a model with its revision, or a function with its settings."""
    if part.get("model"):
        at = f" at {code(part['revision'])}" if part.get("revision") else ""
        return link(str(part["model"])) + at
    source = part.get("function") or part.get("metric")
    if source is None:
        return "a function"
    settings = [
        f"{escape(key)} {escape(value)}" for key, value in part.items() if key not in _TOLD and value is not None
    ]
    return code(source) + (f" ({', '.join(settings)})" if settings else "")


def _adjustments(part: Mapping[str, Any]) -> str:
    """What is done to a score before it is weighed, and to the weight during training."""
    told = []
    scale = part.get("normalization")
    if isinstance(scale, Mapping):
        told.append(f"(score {MINUS} {number(scale['mean'], 'g')}) / {number(scale['scale'], 'g')}")
    elif scale:
        told.append("running z-score")
    if part.get("clip"):
        low, high = (number(end, "g") for end in part["clip"])
        told.append(f"clipped to {low} ... {high}")
    if part.get("weight_schedule"):
        points = (f"{factor:g} at {100 * place:g} %" for place, factor in part["weight_schedule"].items())
        told.append(f"weight {TIMES} {', '.join(points)} of training")
    return "; ".join(told)
