"""Runs side by side: their numbers, and the settings in which they differ. Leaves out: drawing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trl_rewards_plugin.recipes.console import GUARD_NAMES, decimals
from trl_rewards_plugin.runs.read import Run

NOT_YET = "not yet"
UNSET = "default"
# Of a run's record of itself, what would make it another run.
_RECORDED = ("train_rows", "held_out_rows", "held_out", "hardware", "commit")


def number_rows(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What was measured -> a cell for each run; empty while no run has finished."""
    measured = [run.metrics for run in runs if run.metrics is not None]
    components, guards = (_distinct(metrics[key] for metrics in measured) for key in ("component_gain", "guard"))
    return _side_by_side([{} if run.metrics is None else _numbers(run.metrics, components, guards) for run in runs])


def _numbers(metrics: Mapping[str, Any], components: Sequence[str], guards: Sequence[str]) -> dict[str, str]:
    """Reward, components, greedy outputs, yardsticks, guards, KL, size and time of a run."""
    gains, measured = metrics["component_gain"], metrics["guard"]
    return {
        "Reward": _change(metrics["before"]["reward"], metrics["after"]["reward"]),
        "Gain in reward": _gain(metrics["reward_gain"]),
        **{f"Gain in {name}": _gain(gains.get(name)) for name in components},
        "Reward, greedy": _change(metrics["before_greedy"]["reward"], metrics["after_greedy"]["reward"]),
        "Best of 16 at the start": _number(metrics["best_of_16"]["reward"]),
        "The sources' own sentences": _number(metrics["sources"]["reward"]),
        "KL to the reference, nats": decimals(metrics["kl"]),
        **{_guard_name(name): _guard(measured.get(name)) for name in guards},
        "Held-out prompts": f"{metrics['reward_gain']['n']:,}",
        "Responses trained on": f"{metrics['episodes']:,}",
        "Seconds of training": f"{metrics['seconds']:,.0f}",
        "Seed": str(metrics["seed"]),
    }


def setting_rows(runs: Sequence[Run], *, differing: bool) -> dict[str, list[str]]:
    """Setting -> a cell for each run; `differing`: only those in which finished runs differ."""
    rows = _side_by_side([_flat(run.settings) for run in runs])
    return {key: cells for key, cells in rows.items() if not differing or len({*cells} - {NOT_YET}) > 1}


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Every label of some column -> its cells; a run without any has not finished."""
    return {
        label: [column.get(label, UNSET) if column else NOT_YET for column in columns] for label in _distinct(columns)
    }


def _distinct(keys: Iterable[Iterable[str]]) -> list[str]:
    """All keys, in the order of their first place."""
    return list(dict.fromkeys(key for some in keys for key in some))


def why_not_comparable(runs: Sequence[Run]) -> str | None:
    """Why gains of these runs say nothing about each other; None where they do."""
    finished = [run for run in runs if run.metrics is not None]
    rewards = {str(run.settings.get("made_of", {}).get("rewards", run.settings.get("reward"))) for run in finished}
    if len(rewards) > 1:
        return "These runs have different rewards: their rewards and gains have no common scale."
    if len({tuple(row.get("prompt") for row in run.held_out) for run in finished}) > 1:
        return "These runs were measured on different held-out prompts: part of what differs is the prompts."
    return None


def headline(run: Run) -> str:
    """The run in one sentence."""
    metrics = run.metrics
    if metrics is None:
        return f"Not finished: {run.last_step} rollouts so far; numbers on held-out prompts come at the end."
    kl = "" if metrics["kl"] is None else f"; KL {decimals(metrics['kl'])} nats to the reference"
    change = _change(metrics["before"]["reward"], metrics["after"]["reward"])
    gain = metrics["reward_gain"]
    return f"Reward {change} on {gain['n']} held-out prompts: a gain of {_gain(gain)}{kl}."


def _change(before: float | None, after: float | None) -> str:
    return f"{_number(before)} \N{RIGHTWARDS ARROW} {_number(after)}"


def _guard(guard: Mapping[str, float | None] | None) -> str:
    return "-" if guard is None else _change(guard["before"], guard["after"])


def _gain(gain: Mapping[str, Any] | None) -> str:
    if gain is None or gain["mean"] is None:
        return "-"
    low, high = gain["ci95"]
    found = "none" if low is None else f"{_number(low, '+')} to {_number(high, '+')}"
    return f"{_number(gain['mean'], '+')} (95% CI {found})"


def _number(value: float | None, sign: str = "") -> str:
    """With a true minus sign, which has a plus sign's width and never ends a line."""
    return decimals(value, sign) if value is None else decimals(value, sign).replace("-", "\N{MINUS SIGN}")


def _guard_name(name: str) -> str:
    words = GUARD_NAMES.get(name, name)
    return words[:1].upper() + words[1:]


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """One text per setting, what the run was made of among them."""
    made_of = settings.get("made_of", {})
    values = {key: value for key, value in settings.items() if key != "made_of"}
    for part in made_of.get("rewards", ()):
        values |= {f"reward {part.get('name')}: {key}": value for key, value in part.items() if key != "name"}
    values |= {key.replace("_", " "): made_of[key] for key in _RECORDED if key in made_of}
    values |= {f"version of {name}": version for name, version in made_of.get("versions", {}).items()}
    return {key: _setting(value) for key, value in values.items()}


def _setting(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or "(empty)"
