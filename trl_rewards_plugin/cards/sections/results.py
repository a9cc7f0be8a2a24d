"""Before and after on held-out prompts, and what to hold the numbers against. Leaves out: texts (`outputs.py`)."""

from __future__ import annotations

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.markdown import escape, table
from trl_rewards_plugin.text import interval, number

GUARDS = {
    "rouge_l_source": "ROUGE-L against the source (F1)",
    "output_length": "Length in words",
    "distinct": "Share of distinct outputs",
    "not_whole_input": "Share that are not a copy of the whole input",
}


def headline(data: RewardModelCardData) -> str:
    """The gain with its interval, first thing."""
    if not data.metrics or data.metrics["reward_gain"]["mean"] is None:
        return ""
    gain, before, after = (
        data.metrics["reward_gain"],
        data.metrics["before"]["reward"],
        data.metrics["after"]["reward"],
    )
    told = f"**Reward {number(before, '.2f')} → {number(after, '.2f')}** on {gain['n']} held-out prompts"
    told += f": a gain of **{number(gain['mean'], '+.2f')}** (95 % interval {interval(gain['ci95'], '+.2f')})"
    if data.metrics.get("kl") is not None:
        told += f", KL {number(data.metrics['kl'], '.2f')} nats to the starting model"
    return f"> {told}."


def results(data: RewardModelCardData) -> str:
    """Before and after with interval; sampled, then greedy."""
    if not data.metrics:
        return ""
    metrics = data.metrics
    gains = {"reward": metrics["reward_gain"], **metrics["component_gain"]}
    rows = []
    for name, gain in gains.items():
        before, after = (number(metrics[side][name]) for side in ("before", "after"))
        shown = f"**{escape(name)}**" if name == "reward" else escape(name)
        rows.append([shown, before, after, number(gain["mean"], "+.3f"), interval(gain["ci95"])])
    for name in gains:
        before, after = metrics["before_greedy"][name], metrics["after_greedy"][name]
        change = None if before is None or after is None else after - before
        rows.append([f"{escape(name)}, greedy", number(before), number(after), number(change, "+.3f"), ""])
    where = f" ({escape(data.held_out)})" if data.held_out else ""
    note = (
        f"Means over {metrics['reward_gain']['n']} held-out prompts{where}, decoded before and after with the same "
        "settings and seed; sampled as in training unless it says greedy. Intervals: paired bootstrap over prompts. "
        "They cover the choice of prompts, not the choice of training seed."
    )
    return table(["", "Before", "After", "Gain", "95 % interval"], rows, {1, 2, 3, 4}) + "\n\n" + note


def guards(data: RewardModelCardData) -> str:
    """What a policy that games its judges would break."""
    if not data.metrics:
        return ""
    rows = [
        [escape(GUARDS.get(name, name)), number(pair["before"]), number(pair["after"])]
        for name, pair in data.metrics["guard"].items()
    ]
    if data.metrics.get("kl") is not None:
        rows.append(["KL to the starting model (nats an output)", "0.000", number(data.metrics["kl"])])
    return table(["What gaming the judges would break", "Before", "After"], rows, {1, 2}) if rows else ""


def yardsticks(data: RewardModelCardData) -> str:
    """What to hold the gain against."""
    if not data.metrics:
        return ""
    sources, best = (data.metrics.get(key, {}).get("reward") for key in ("sources", "best_of_16"))
    told = []
    if sources is not None:
        told.append(f"the sources' own sentences score {number(sources)}")
    if best is not None:
        told.append(f"the best of 16 samples of the starting model {number(best)}")
    return f"For scale: {', '.join(told)}." if told else ""
