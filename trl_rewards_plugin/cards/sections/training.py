"""How the model was trained, and how to do it again. Leaves out: what for (`taught.py`)."""

from __future__ import annotations

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.markdown import code, escape, link, quote, table
from trl_rewards_plugin.text import duration, number

PACKAGE = "`trl_rewards_plugin`"
PPO_PAPER = {"title": "Proximal Policy Optimization Algorithms", "id": "1707.06347"}


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
