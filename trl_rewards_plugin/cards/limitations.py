"""What the rewards and the numbers of a run warn of. Leaves out: the sentences (`model_card.md.jinja`)."""

from collections.abc import Mapping
from typing import Any

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.text import number

# What each way of combining several rewards lets a policy get away with.
TRADE_OFFS = {
    "weighted_sum": "The rewards are summed, so a high score on one can make up for a low score on another.",
    "weighted_mean": "The rewards are averaged, so a high score on one can make up for a low score on another.",
    "minimum": "Only the lowest weighted score of each output counts: where one judge is hard to satisfy, the others "
    "have no influence.",
    "geometric_mean": "The rewards are multiplied, so a high score on one can make up for a low score on another "
    "unless that is near 0.",
}


def output_only_judges(data: RewardModelCardData) -> list[str]:
    """Names of the models that score the output without its prompt."""
    return [part["name"] for part in data.rewards if part.get("model") and not part.get("pair")]


def wrong_moves(data: RewardModelCardData) -> tuple[list[str], list[str]]:
    """Components that fell, and penalties that rose, each with the change of its mean."""
    gains: Mapping[str, Any] = data.metrics["component_gain"] if data.metrics else {}
    penalties = {part["name"] for part in data.rewards if part["weight"] < 0}
    moves = {name: gain["mean"] for name, gain in gains.items() if gain["mean"] is not None}
    shown = {name: f"{name} ({number(mean, '+.3f')})" for name, mean in moves.items()}
    lower = [shown[name] for name, mean in moves.items() if name not in penalties and round(mean, 3) < 0]
    higher = [shown[name] for name, mean in moves.items() if name in penalties and round(mean, 3) > 0]
    return lower, higher


def length_change(data: RewardModelCardData) -> float | None:
    """Change of the outputs' mean length in percent, if it is at least 10."""
    length = data.metrics["guard"].get("output_length") if data.metrics else None
    if not length or not length["before"]:
        return None
    change: float = 100 * (length["after"] / length["before"] - 1)
    return change if abs(change) >= 10 else None
