"""How the judges of this very run can be fooled, and what nobody measured."""

from __future__ import annotations

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.markdown import escape
from trl_rewards_plugin.text import listed, number

# What each way of making one number of several rewards lets a policy get away with.
_TRADES = {
    "weighted_sum": "The rewards are added up, so a high score of one can pay for a low score of another.",
    "weighted_mean": "The rewards are averaged, so a high score of one can pay for a low score of another.",
    "minimum": "Only the lowest weighted score of an output counts: where one judge is hard to please, the others had "
    "no say.",
    "geometric_mean": "The rewards are multiplied, so a high score of one can pay for a low score of another unless "
    "that is near 0.",
}


def limits(data: RewardModelCardData) -> str:
    """How the judges of this very run can be fooled, and what nobody measured."""
    lines = [
        "It was taught what "
        + ("the judges above prefer" if data.rewards else "its training signal prefers")
        + ", mistakes and biases included; a higher score is not proof of better text."
    ]
    blind = [escape(part["name"]) for part in data.rewards if part.get("model") and not part.get("pair")]
    if blind:
        subject = f"{listed(blind)} {'reads' if len(blind) == 1 else 'read'} the output alone and never the source"
        lines.append(
            f"{subject}: a fluent text that is bland, or about something else, can please as well as a true one."
        )
    if len(data.rewards) > 1:
        lines.append(_TRADES[data.aggregation])
    lines += _measured_limits(data)
    if data.metrics:
        lines.append("Nothing here measures whether an output is true to its source beyond shared words.")
    lines.append("One training run with one seed; other seeds end elsewhere." if data.seed is not None else "")
    return "\n".join(f"- {line}" for line in lines if line)


def _measured_limits(data: RewardModelCardData) -> list[str]:
    """What the numbers of this run themselves warn of."""
    if not data.metrics:
        return []
    lines, metrics = [], data.metrics
    penalties = {part["name"] for part in data.rewards if part["weight"] < 0}
    moved = {name: gain["mean"] for name, gain in metrics["component_gain"].items() if gain["mean"] is not None}
    fell = [name for name, mean in moved.items() if name not in penalties and round(mean, 3) < 0]
    rose = [name for name, mean in moved.items() if name in penalties and round(mean, 3) > 0]
    for names, where in ((fell, "Lower"), (rose, "Higher")):
        if names:
            told = listed([f"{escape(name)} ({number(moved[name], '+.3f')})" for name in names])
            lines.append(f"{where} than before training: {told}.")
    length = metrics["guard"].get("output_length")
    if length and length["before"] and abs(length["after"] / length["before"] - 1) >= 0.1:
        change = 100 * (length["after"] / length["before"] - 1)
        lines.append(f"Outputs are {abs(change):.0f} % {'longer' if change > 0 else 'shorter'} than before.")
    low, high = metrics["reward_gain"]["ci95"]
    if low is not None and low <= 0 <= high:
        lines.append("The interval of the gain includes 0: these prompts do not show that training helped.")
    if data.rows_worse:
        count = metrics["reward_gain"]["n"]
        lines.append(f"{data.rows_worse} of {count} held-out outputs score lower than before training.")
    return lines
