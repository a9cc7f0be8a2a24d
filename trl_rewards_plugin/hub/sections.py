"""What stands in each place of the card's template, as Markdown; "" where there is nothing to say.

Only numbers that were measured. Leaves out: the quickstart (`quickstart.py`), the YAML in front (`metadata.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trl_rewards_plugin.hub.data import RewardModelCardData
from trl_rewards_plugin.hub.markdown import cell, code, escape, link, quote, table

TIMES, MINUS, DASH = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}", "\N{EN DASH}"
GUARDS = {
    "rouge_l_source": "ROUGE-L against the source (F1)",
    "output_length": "Length in words",
    "distinct": "Share of distinct outputs",
    "not_whole_input": "Share that are not a copy of the whole input",
}
PACKAGE = "`trl_rewards_plugin`"
PPO_PAPER = {"title": "Proximal Policy Optimization Algorithms", "id": "1707.06347"}


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


def headline(data: RewardModelCardData) -> str:
    """The gain with its interval, first thing."""
    if not data.metrics or data.metrics["reward_gain"]["mean"] is None:
        return ""
    gain, before, after = (
        data.metrics["reward_gain"],
        data.metrics["before"]["reward"],
        data.metrics["after"]["reward"],
    )
    low, high = (number(end, "+.2f") for end in gain["ci95"])
    told = f"**Reward {number(before, '.2f')} → {number(after, '.2f')}** on {gain['n']} held-out prompts"
    told += f": a gain of **{number(gain['mean'], '+.2f')}** (95 % interval {low} to {high})"
    if data.metrics.get("kl") is not None:
        told += f", KL {number(data.metrics['kl'], '.2f')} nats to the starting model"
    return f"> {told}."


def rewards(data: RewardModelCardData) -> str:
    """Each classifier with label, weight and revision, and how they add up."""
    if not data.rewards:
        return ""
    rows = []
    for part in data.rewards:
        judge = link(str(part["model"])) if part.get("model") else "a function"
        if part.get("revision"):
            judge += f" at {code(part['revision'])}"
        label = code(part["label"]) if part.get("label") is not None else ""
        score = escape(part.get("score_type") or "") + (" of prompt and output" if part.get("pair") else "")
        rows.append([escape(part["name"]), f"{part['weight']:g}", judge, label, score])
    head = ["Reward", "Weight", "Judge", "Label", "Score"]
    kept = [index for index in range(5) if index < 3 or any(row[index] for row in rows)]
    formula = " + ".join(f"{part['weight']:g} {TIMES} {escape(part['name'])}" for part in data.rewards)
    rows = [[row[index] for index in kept] for row in rows]
    return f"{table([head[index] for index in kept], rows, {1})}\n\nReward of an output = {formula}."


def results(data: RewardModelCardData) -> str:
    """Before and after with interval; sampled, then greedy."""
    if not data.metrics:
        return ""
    metrics = data.metrics
    gains = {"reward": metrics["reward_gain"], **metrics["component_gain"]}
    rows = []
    for name, gain in gains.items():
        low, high = (number(end, "+.3f") for end in gain["ci95"])
        before, after = (number(metrics[side][name]) for side in ("before", "after"))
        shown = f"**{escape(name)}**" if name == "reward" else escape(name)
        rows.append([shown, before, after, number(gain["mean"], "+.3f"), f"{low} to {high}"])
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


def curve(data: RewardModelCardData) -> str:
    """The picture."""
    return f"![Mean training reward and KL to the starting model, by episode]({data.curve})" if data.curve else ""


def training(data: RewardModelCardData) -> str:
    """Episodes, time, hardware, energy, rewards by epoch."""
    parts = []
    seconds = data.metrics["seconds"] if data.metrics else data.seconds
    episodes = f"{data.metrics['episodes']:,} episodes" if data.metrics else "Trained"
    if seconds is not None:
        parts.append(
            f"{episodes} in {duration(seconds)}" + (f" on {escape(data.hardware)}." if data.hardware else ".")
        )
    elif data.hardware:
        parts.append(f"Trained on {escape(data.hardware)}.")
    if "kwh" in data.energy:
        parts.append(f"Energy: {data.energy['kwh']:.3g} kWh, as CodeCarbon measured it.")
    if data.epoch_rewards:
        parts.append(f"Mean reward by epoch: {', '.join(number(reward) for reward in data.epoch_rewards)}.")
    return " ".join(parts)


def settings(data: RewardModelCardData) -> str:
    """The algorithm with what was not left at its default."""
    if not data.settings:
        return ""
    rows = [[code(key), code(value)] for key, value in data.settings.items()]
    return f"{_paper(data)}Settings that are not the default:\n\n" + table(["Setting", "Value"], rows)


def _paper(data: RewardModelCardData) -> str:
    paper = data.paper or (PPO_PAPER if data.algorithm == "PPO" else {})
    if not paper.get("title"):
        return ""
    title = escape(paper["title"])
    shown = f"[{title}](https://arxiv.org/abs/{paper['id']})" if paper.get("id") else title
    return f"Algorithm: {escape(data.algorithm)} ({shown}). "


def data_section(data: RewardModelCardData) -> str:
    """Where the prompts come from, how many, and what they look like."""
    if not data.dataset and not data.train_rows:
        return ""
    names = [link(name, "datasets/") for name in (data.dataset or "").split(", ") if name]
    size = f"{data.train_rows:,} prompts" if data.train_rows else "Prompts"
    told = size + (f" of {', '.join(names)}" if names else "")
    told += f", each behind {code(data.prompt_prefix)}" if data.prompt_prefix.strip() else ""
    if not data.prompts:
        return f"Data: {told}."
    return f"Data: {told}. They look like these held-out ones:\n\n" + "\n>\n".join(map(quote, data.prompts))


def log(data: RewardModelCardData) -> str:
    """The training log of a run that has no picture."""
    if not data.log:
        return ""
    heads = list(dict.fromkeys(key for row in data.log for key in row if key != "step"))
    rows = [[str(row["step"]), *(number(row.get(key), ".4f") for key in heads)] for row in data.log]
    return table(["Step", *heads], rows, set(range(len(heads) + 1)))


def samples(data: RewardModelCardData) -> str:
    """The first held-out prompts, picked by nobody."""
    told = f"The first {len(data.samples)} held-out prompts, sampled, with the reward of each output."
    return _outputs(told, data.samples)


def gains(data: RewardModelCardData) -> str:
    """Where the reward rose most."""
    told = "**Best gains**" + (f" ({data.rows_better} outputs score higher than before):" if data.rows_better else ":")
    return _outputs(told, data.gains)


def losses(data: RewardModelCardData) -> str:
    """Where it fell most."""
    told = "**Worst regressions**"
    return _outputs(told + (f" ({data.rows_worse} outputs score lower):" if data.rows_worse else ":"), data.losses)


def _outputs(told: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    cells = []
    for row in rows:
        before, after = row["before_reward"], row["after_reward"]
        sides = [f"{cell(row[side])} ({number(row[f'{side}_reward'], '+.2f')})" for side in ("before", "after")]
        cells.append([cell(row["source"]), *sides, number(_difference(before, after), "+.2f")])
    return f"{told}\n\n" + table(["Source", "Before", "After", "Change"], cells, {3})


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def limits(data: RewardModelCardData) -> str:
    """How the judges of this very run can be fooled, and what nobody measured."""
    lines = [
        "It was taught what "
        + ("the judges above prefer" if data.rewards else "its training signal prefers")
        + ", mistakes and biases included; a higher score is not proof of better text."
    ]
    blind = [escape(part["name"]) for part in data.rewards if part.get("model") and not part.get("pair")]
    if blind:
        subject = f"{_listed(blind)} {'reads' if len(blind) == 1 else 'read'} the output alone and never the source"
        lines.append(
            f"{subject}: a fluent text that is bland, or about something else, can please as well as a true one."
        )
    if len(data.rewards) > 1:
        lines.append("The rewards are added up, so a high score of one can pay for a low score of another.")
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
    fell = [
        f"{escape(name)} ({number(gain['mean'], '+.3f')})"
        for name, gain in metrics["component_gain"].items()
        if gain["mean"] is not None and round(gain["mean"], 3) < 0
    ]
    if fell:
        lines.append(f"Lower than before training: {_listed(fell)}.")
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


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def reproduce(data: RewardModelCardData) -> str:
    """Command, seed, versions, commit."""
    parts = []
    if data.config_file:
        parts.append(f"With [{data.config_file}]({data.config_file}) from this repository:\n\n")
        parts.append(f"```sh\ntrl-rewards train --config {data.config_file}\n```\n\n")
    if data.seed is not None:
        parts.append(f"Seed {data.seed}. ")
    if data.versions:
        told = ", ".join(f"{name} {escape(version)}" for name, version in data.versions.items())
        parts.append(f"Made with {told}.")
    if data.commit:
        parts.append(f" Source of {PACKAGE}: commit {code(data.commit)}.")
    return "".join(parts).strip()


def number(value: float | None, form: str = ".3f") -> str:
    """`value` in `form` with a real minus sign, 0 without any; a dash where nothing was measured."""
    if value is None:
        return DASH
    told = format(value, form)
    return told.lstrip("+-") if float(told) == 0 else told.replace("-", MINUS)


def duration(seconds: float) -> str:
    """ "35 seconds", "2.1 minutes", "3.4 hours"."""
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"
