"""Runs side by side: their numbers, and the settings in which they differ. Leaves out: drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from trl_rewards_plugin.recipes.console import GUARD_NAMES, decimals
from trl_rewards_plugin.runs.read import Run

_Metrics: TypeAlias = Mapping[str, Any]

NOT_YET = "not yet"
UNSET = "default"
# Of a run's record of itself, what would make it another run.
_TOLD = ("train_rows", "held_out_rows", "held_out", "hardware", "commit")


@dataclass(frozen=True)
class Row:
    """A line of the table: what it tells, and a cell for each run."""

    label: str
    cells: Sequence[str]


def number_rows(runs: Sequence[Run]) -> list[Row]:
    """Reward, components, greedy outputs, yardsticks, guards, KL, size and time of the runs."""
    measured = [run.metrics for run in runs if run.metrics is not None]
    components = list(dict.fromkeys(name for metrics in measured for name in metrics["component_gain"]))
    guards = list(dict.fromkeys(name for metrics in measured for name in metrics["guard"]))
    cells: dict[str, Callable[[_Metrics], str]] = {
        "Reward": lambda told: _change(told["before"]["reward"], told["after"]["reward"]),
        "Gain in reward": lambda told: _gain(told["reward_gain"]),
        **{f"Gain in {name}": partial(_component_gain, name) for name in components},
        "Reward, greedy": lambda told: _change(told["before_greedy"]["reward"], told["after_greedy"]["reward"]),
        "Best of 16 at the start": lambda told: _minus(decimals(told["best_of_16"]["reward"])),
        "The sources' own sentences": lambda told: _minus(decimals(told["sources"]["reward"])),
        "KL to the start, nats": lambda told: decimals(told["kl"]),
        **{_sentence(GUARD_NAMES.get(name, name)): partial(_guard, name) for name in guards},
        "Held-out prompts": lambda told: f"{told['reward_gain']['n']:,}",
        "Responses trained on": lambda told: f"{told['episodes']:,}",
        "Seconds of training": lambda told: f"{told['seconds']:,.0f}",
        "Seed": lambda told: str(told["seed"]),
    }
    return [
        Row(label, [NOT_YET if run.metrics is None else cell(run.metrics) for run in runs])
        for label, cell in cells.items()
        if measured
    ]


def setting_rows(runs: Sequence[Run], *, differing: bool) -> list[Row]:
    """Settings of the runs; `differing`: only those in which finished runs differ, and which run has which."""
    flat = [_flat(run.settings) for run in runs]
    known = list(dict.fromkeys(key for settings in flat for key in settings))
    rows = [
        Row(key, [settings.get(key, UNSET) if settings else NOT_YET for settings in flat])
        for key in known
    ]  # fmt: skip
    return [row for row in rows if len({*row.cells} - {NOT_YET}) > 1] if differing else rows


def why_not_comparable(runs: Sequence[Run]) -> str | None:
    """Why gains of these runs say nothing about each other; None where they do."""
    finished = [run for run in runs if run.metrics is not None]
    rewards = {str(run.settings.get("made_of", {}).get("rewards", run.settings.get("reward"))) for run in finished}
    if len(rewards) > 1:
        return "These runs have different rewards: their rewards and gains have no common scale."
    if len({tuple(row["prompt"] for row in run.held_out) for run in finished}) > 1:
        return "These runs were measured on different held-out prompts: part of what differs is the prompts."
    return None


def headline(run: Run) -> str:
    """The run in one sentence."""
    told = run.metrics
    if told is None:
        return f"Not finished: {run.last_step} rollouts so far; numbers on held-out prompts come at the end."
    kl = "" if told["kl"] is None else f"; KL {decimals(told['kl'])} nats to the start"
    return (
        f"Reward {_change(told['before']['reward'], told['after']['reward'])} on {told['reward_gain']['n']} held-out "
        f"prompts: a gain of {_gain(told['reward_gain'])}{kl}."
    )


def _component_gain(name: str, told: _Metrics) -> str:
    gain = told["component_gain"].get(name)
    return "-" if gain is None else _gain(gain)


def _guard(name: str, told: _Metrics) -> str:
    guard = told["guard"].get(name)
    return "-" if guard is None else _change(guard["before"], guard["after"])


def _change(before: float | None, after: float | None) -> str:
    return f"{_minus(decimals(before))} \N{RIGHTWARDS ARROW} {_minus(decimals(after))}"


def _gain(gain: Mapping[str, Any]) -> str:
    if gain["mean"] is None:
        return "-"
    low, high = (_minus(decimals(end, "+")) for end in gain["ci95"])
    return f"{_minus(decimals(gain['mean'], '+'))} (95 % interval {low} to {high})"


def _minus(text: str) -> str:
    """A true minus sign, which has a plus sign's width and never ends a line."""
    return text.replace("-", "\N{MINUS SIGN}") if len(text) > 1 else text


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """One text a setting, what the run was made of among them."""
    made_of = settings.get("made_of", {})
    values = {key: value for key, value in settings.items() if key != "made_of"}
    for part in made_of.get("rewards", ()):
        values |= {f"reward {part.get('name')}: {key}": value for key, value in part.items() if key != "name"}
    values |= {key.replace("_", " "): made_of[key] for key in _TOLD if key in made_of}
    values |= {f"version of {name}": version for name, version in made_of.get("versions", {}).items()}
    return {key: _setting(value) for key, value in values.items()}


def _setting(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or "(empty)"
