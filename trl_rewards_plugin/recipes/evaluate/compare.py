"""Evaluates a model, or a file of outputs, with any metrics; against a second side also the paired gain and interval.

`trl-rewards evaluate` is `evaluate_outputs(settings)`. Leaves out: training, and the metrics of a run itself
(`before_after.py`).
"""

import sys
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
from tqdm.auto import tqdm

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS, paired_gain
from trl_rewards_plugin.recipes.before_after import mean_scored
from trl_rewards_plugin.recipes.console import decimals, direction, format_evaluation, format_plan, verdict
from trl_rewards_plugin.recipes.evaluate.evaluation_job import EvaluationJob
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationSettings, thresholds
from trl_rewards_plugin.recipes.evaluate.measures import Values
from trl_rewards_plugin.runs.layout import EVALUATION, OUTPUTS
from trl_rewards_plugin.runs.writing import write_json, write_table
from trl_rewards_plugin.terminal import say

PICTURE = "distributions.png"

_Rows: TypeAlias = Mapping[str, Mapping[str, Values]]  # row name -> side ("before", "after") -> values


def evaluate_outputs(settings: EvaluationSettings) -> dict[str, Any]:
    """Checks, generates, measures, prints a table, writes JSON, picture and outputs; returns what the JSON holds.

    What cannot work is refused before any model is loaded, but for what only a metric can tell.
    """
    job = EvaluationJob(settings)
    say(format_plan(job.plan()) + "\n")
    measures = job.load_measures()
    known = dict.fromkeys(row for measure in measures for row in measure.rows or [""])
    if "" not in known:
        check_names(settings, known)
    sides = {side: job.outputs_of(side) for side in job.names}
    rows: dict[str, dict[str, Values]] = {}
    steps = [(measure, side, outputs) for measure in measures for side, outputs in sides.items()]
    for measure, side, outputs in (bar := tqdm(steps, desc="Metrics", file=sys.stderr)):
        bar.set_postfix_str(f"{measure.name}, {side}")
        for name, values in measure.measure(outputs, job.held_out, settings.reference_column).items():
            rows.setdefault(name, {})[side] = values
    result = job.describe(len(sides["after"])) | {"metrics": _summaries(rows)}
    say(format_evaluation(result))
    check_names(settings, result["metrics"])
    if settings.fail_under or settings.fail_if_worse:
        bars = [f"{name} at least {least:g}" for name, least in thresholds(settings)]
        bars += ["nothing worse than before"] if settings.fail_if_worse else []
        result |= {"bars": bars, "failed": failed(result, settings)}
    _write(job, result, rows, sides)
    say(f"\nNumbers, picture, outputs: {job.folder / EVALUATION}, {PICTURE}, {OUTPUTS}")
    return result


def check_names(settings: EvaluationSettings, rows: Collection[str]) -> None:
    """Refuses a name in `fail_under` or `lower_is_better` that is no row of the table, or the end of several."""
    for name, _ in thresholds(settings):
        _row(name, rows, "fail_under")
    for name in settings.lower_is_better or ():
        _row(name, rows, "lower_is_better")


def failed(result: Mapping[str, Any], settings: EvaluationSettings) -> list[str]:
    """Why the outputs do not meet `fail_under` and `fail_if_worse`, whose names are rows; empty where they do."""
    rows, reasons = result["metrics"], []
    for name, least in thresholds(settings):
        meant = _row(name, rows, "fail_under")
        mean = rows[meant].get("after")
        if mean is None or not mean >= least:
            reasons.append(f"{meant} is {decimals(mean)}, under {least:g}")
    if settings.fail_if_worse:
        lower_is_better = [_row(name, rows, "lower_is_better") for name in settings.lower_is_better or ()]
        paired = {name: row["gain"] for name, row in rows.items() if row.get("gain", {"n": 0})["n"] >= MIN_PAIRS}
        if not paired:
            reasons.append(f"no metric has numbers for {MIN_PAIRS} outputs before and after: none can be found worse")
        worse: dict[str, list[str]] = {}
        for name, gain in paired.items():
            if direction(gain) == (1 if name in lower_is_better else -1):
                worse.setdefault(verdict(gain, ("worse (higher)", "worse")), []).append(name)
        reasons += [f"{', '.join(names)}: {how}" for how, names in worse.items()]
    return reasons


def _row(name: str, rows: Collection[str], setting: str) -> str:
    """The one row of the table called `name`, or ending in it."""
    meant = [name] if name in rows else [row for row in rows if row.endswith(f" {name}")]
    if len(meant) != 1:
        found = f"{name!r}, which is {' and '.join(meant) or 'not one of them'}"
        step = did_you_mean(name, [*rows, *(row.split()[-1] for row in rows)]) if not meant else ""
        raise InputError(f"a row of the table in {setting}: {', '.join(rows)}", found, f"{step}name one in full")
    return meant[0]


def _summaries(rows: _Rows) -> dict[str, Any]:
    """Row name -> means, and the paired gain where each text has a number on both sides."""
    summaries: dict[str, Any] = {}
    for name, found in rows.items():
        summary: dict[str, Any] = {
            side: mean_scored(values) if isinstance(values, np.ndarray) else values for side, values in found.items()
        }
        after, before = found.get("after"), found.get("before")
        if isinstance(after, np.ndarray):
            scored = after[~np.isnan(after)]
            quartiles = np.quantile(scored, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(scored) else None
            summary["quartiles"] = quartiles  # least, 25%, median, 75%, most
            if isinstance(before, np.ndarray):
                summary["gain"] = paired_gain(before.tolist(), after.tolist())
        summaries[name] = summary
    return summaries


def _write(job: EvaluationJob, result: Mapping[str, Any], rows: _Rows, sides: Mapping[str, list[str]]) -> None:
    """Picture, outputs, and last the numbers: a folder that has them is complete."""
    from trl_rewards_plugin.charts.histograms import save_distributions

    job.folder.mkdir(parents=True, exist_ok=True)
    per_text = {
        name: {side: values for side, values in found.items() if isinstance(values, np.ndarray)}
        for name, found in rows.items()
    }
    drawn = {name: (found.get("before"), found["after"]) for name, found in per_text.items() if "after" in found}
    gains = {name: result["metrics"][name]["gain"] for name in drawn if "gain" in result["metrics"][name]}
    title = ", ".join(f"{side}: {result[side]}" for side in sides) if len(sides) > 1 else result["after"]
    save_distributions(drawn, gains, f"{title} ({result['n']} outputs)", job.folder / PICTURE)
    held_out = job.held_out
    prompts = {} if held_out is None else {"prompt": held_out.prompts, "source": held_out.sources}
    scores = {f"{side} {name}": found[side].tolist() for name, found in per_text.items() for side in found}
    write_table(job.folder / OUTPUTS, {**prompts, **sides, **scores})
    write_json(job.folder / EVALUATION, result)
