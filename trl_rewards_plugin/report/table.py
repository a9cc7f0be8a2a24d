"""Runs side by side: their numbers, and the settings in which they differ. Leaves out: drawing."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from trl_rewards_plugin.recipes.console import GUARD_NAMES
from trl_rewards_plugin.runs.read import Run
from trl_rewards_plugin.text import DASH, counted, cut_prompts, interval, number

NOT_YET = "not yet"
UNSET = "default"
# Of a run's record of itself, what would make it another run.
_RECORDED = ("train_rows", "held_out_rows", "held_out", "hardware", "commit")


def number_rows(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What was measured -> a cell for each run; empty while no run has finished."""
    measured = [run.metrics for run in runs if run.metrics is not None]
    components, guards = (_distinct(metrics[key] for metrics in measured) for key in ("component_gain", "guard"))
    columns: list[Mapping[str, str]] = []
    for run in runs:
        numbers = _numbers(run.metrics, components, guards) if run.metrics else {}
        columns.append(_evaluated(run.evaluation) if run.evaluation else numbers)
    return _side_by_side(columns, DASH)


def _evaluated(result: Mapping[str, Any]) -> dict[str, str]:
    """An evaluation's metrics before and after, with the gain where there is one."""
    return {
        name: _change(row.get("before"), row.get("after"))
        + (f", {_gain({'mean': row['gain']['reward_gain'], **row['gain']})}" if row.get("gain") else "")
        for name, row in result["metrics"].items()
    }


def seed_spread(runs: Sequence[Run]) -> dict[str, str]:
    """Number -> mean and standard deviation (N - 1) over runs that differ in their seed alone; else empty."""
    settings = [{key: value for key, value in run.settings.items() if key not in ("seed", "made_of")} for run in runs]
    measured = [run.metrics for run in runs if run.metrics is not None]
    seeds = {metrics["seed"] for metrics in measured}
    if len(runs) < 2 or len(seeds) < len(runs) or any(one != settings[0] for one in settings):
        return {}
    values = {
        "Reward before": [metrics["before"]["reward"] for metrics in measured],
        "Reward after": [metrics["after"]["reward"] for metrics in measured],
        "Gain in reward": [metrics["reward_gain"]["mean"] for metrics in measured],
        "KL to the reference, nats": [metrics["kl"] for metrics in measured],
    }
    known = {name: numbers for name, numbers in values.items() if None not in numbers}
    return {name: f"{number(mean(these))} \N{PLUS-MINUS SIGN} {number(stdev(these))}" for name, these in known.items()}


def _numbers(metrics: Mapping[str, Any], components: Sequence[str], guards: Sequence[str]) -> dict[str, str]:
    gains, measured, none = metrics["component_gain"], metrics["guard"], {"before": None, "after": None}
    guard_rows = {GUARD_NAMES.get(name, name): measured.get(name, none) for name in guards}
    return {
        "Reward": _change(metrics["before"]["reward"], metrics["after"]["reward"]),
        "Gain in reward": _gain(metrics["reward_gain"]),
        **{f"Gain in {name}": _gain(gains.get(name, {"mean": None})) for name in components},
        "Reward, greedy": _change(metrics["before_greedy"]["reward"], metrics["after_greedy"]["reward"]),
        "Best of 16 at the start": number(metrics["best_of_16"]["reward"]),
        "The sources' own sentences": number(metrics["sources"]["reward"]),
        "KL to the reference, nats": number(metrics["kl"]),
        **{f"{name[:1].upper()}{name[1:]}": _change(row["before"], row["after"]) for name, row in guard_rows.items()},
        "Held-out prompts": f"{metrics['reward_gain']['n']:,}",
        "Length of prompts": cut_prompts(metrics["prompt_cuts"]) if metrics.get("prompt_cuts") else DASH,
        "Responses trained on": f"{metrics['episodes']:,}",
        "Seconds of training": f"{metrics['seconds']:,.0f}",
        "Seed": str(metrics["seed"]),
    }


def setting_rows(runs: Sequence[Run], *, differing: bool) -> dict[str, list[str]]:
    """Setting -> a cell for each run; `differing`: only those in which finished runs differ."""
    rows = _side_by_side([_flat(run.settings) for run in runs], UNSET)
    return {key: cells for key, cells in rows.items() if not differing or len({*cells} - {NOT_YET}) > 1}


def _side_by_side(columns: Sequence[Mapping[str, str]], missing: str) -> dict[str, list[str]]:
    """Label of any column -> its cells, `missing` where a column has none; a run without any has not finished."""
    return {
        label: [column.get(label, missing) if column else NOT_YET for column in columns]
        for label in _distinct(columns)
    }


def _distinct(keys: Iterable[Iterable[str]]) -> list[str]:
    """All keys, in the order of their first place."""
    return list(dict.fromkeys(key for some in keys for key in some))


def why_not_comparable(runs: Sequence[Run]) -> str | None:
    """Why gains of these runs say nothing about each other; None where they do."""
    finished = [run for run in runs if run.metrics is not None]
    made_of = [run.settings.get("made_of", {}) for run in finished]
    rewards = {
        str([made.get("rewards", run.settings.get("reward")), made.get("aggregation"), made.get("disagreement_coef")])
        for run, made in zip(finished, made_of, strict=True)
    }
    if len(rewards) > 1:
        return "These runs have different rewards: their rewards and gains have no common scale."
    if len({tuple(row.get("prompt") for row in run.held_out) for run in finished}) > 1:
        return "These runs were measured on different held-out prompts: part of the difference comes from the prompts."
    return None


def title(runs: Sequence[Run]) -> str:
    """What the page shows."""
    evaluations = sum(run.evaluation is not None for run in runs)
    if len(runs) == 1:
        before, after = runs[0].compared
        if runs[0].evaluation is None:
            return f"Run {runs[0].name}"
        return f"{after} compared with {before}" if runs[0].evaluation["before"] else f"Evaluation of {after}"
    kinds = {"run": len(runs) - evaluations, "evaluation": evaluations}
    return f"{' and '.join(counted(count, kind) for kind, count in kinds.items() if count)} compared"


def headline(run: Run) -> str:
    """The run in one sentence."""
    metrics = run.metrics
    if run.evaluation is not None:
        against = f", compared with {run.compared[0]}" if run.evaluation["before"] else ""
        references = f" References: {run.evaluation['references']}." if run.evaluation.get("references") else ""
        references += f" Metrics: {run.evaluation['measured_by']}." if run.evaluation.get("metric_kwargs") else ""
        outputs = counted(run.evaluation["n"], "output")
        return f"{_outcome(run.evaluation)}{outputs}: {run.compared[1]}{against}.{references}"
    if metrics is None:
        return f"Not finished: {run.last_step} rollouts so far; numbers on held-out prompts come at the end."
    kl = "" if metrics["kl"] is None else f"; KL {number(metrics['kl'])} nats to the reference"
    change = _change(metrics["before"]["reward"], metrics["after"]["reward"])
    gain = metrics["reward_gain"]
    return f"Reward {change} on {gain['n']} held-out prompts: a gain of {_gain(gain)}{kl}."


def _outcome(result: Mapping[str, Any]) -> str:
    """Whether an evaluation met its bars; empty where it had none."""
    if not result.get("failed"):
        return f"Passed: {', '.join(result['bars'])}. " if "bars" in result else ""
    return f"Failed: {'; '.join(result['failed'])}. "


def _change(before: float | None, after: float | None) -> str:
    return DASH if before is after is None else f"{number(before)} \N{RIGHTWARDS ARROW} {number(after)}"


def _gain(gain: Mapping[str, Any]) -> str:
    return DASH if gain["mean"] is None else f"{number(gain['mean'], '+.3f')} (95% CI {interval(gain['ci95'])})"


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """One text per setting, what the run was made of among them."""
    made_of = settings.get("made_of", {})
    values = {key: value for key, value in settings.items() if key != "made_of"}
    for part in made_of.get("rewards", ()):
        values |= {f"reward {part.get('name')}: {key}": value for key, value in part.items() if key != "name"}
    values |= {key.replace("_", " "): made_of[key] for key in _RECORDED if key in made_of}
    values |= {f"version of {name}": version for name, version in made_of.get("versions", {}).items()}
    listed = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    return {key: ", ".join(map(str, parts)) or "(empty)" for key, parts in listed.items()}
