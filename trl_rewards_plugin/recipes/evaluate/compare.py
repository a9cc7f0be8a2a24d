"""Evaluates a model, or a file of outputs, with any metrics; against a second side also the paired gain and interval.

Leaves out: what needs no model (`evaluation_inputs.py`), and the metrics of a run itself (`before_after.py`).
"""

import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.charts.histograms import save_distributions
from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS, paired_gain
from trl_rewards_plugin.pipelines import text2text_pipeline
from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model
from trl_rewards_plugin.recipes.before_after import mean_scored
from trl_rewards_plugin.recipes.console import decimals, direction, format_evaluation, format_plan, verdict
from trl_rewards_plugin.recipes.evaluate.evaluation_inputs import EvaluationInputs
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationSettings, check_names, row_of, thresholds
from trl_rewards_plugin.recipes.evaluate.measures import Values, load_measures
from trl_rewards_plugin.runs.layout import EVALUATION, OUTPUTS
from trl_rewards_plugin.runs.writing import write_json, write_table
from trl_rewards_plugin.terminal import say

PICTURE = "distributions.png"

_Rows: TypeAlias = Mapping[str, Mapping[str, Values]]  # row name -> side ("before", "after") -> values


def evaluate_outputs(inputs: EvaluationInputs) -> dict[str, Any]:
    """Generates, measures, prints a table, writes JSON, picture and outputs; returns what the JSON holds."""
    settings = inputs.settings
    for side, name in inputs.names.items():
        if side not in inputs.files:
            check_seq2seq_model(resolve(name))
    say(format_plan(inputs.plan()) + "\n")
    measures = load_measures(
        settings.metrics,
        judge="tiny" if inputs.preset.name == "tiny" else None,
        arguments=settings.metric_kwargs or {},
        given=inputs.given,
    )
    known = dict.fromkeys(row for measure in measures for row in measure.rows or [""])
    if "" not in known:
        check_names(settings, known)
    sides = {side: outputs_of(inputs, side) for side in inputs.names}
    rows: dict[str, dict[str, Values]] = {}
    steps = [(measure, side, outputs) for measure in measures for side, outputs in sides.items()]
    for measure, side, outputs in (bar := tqdm(steps, desc="Metrics", file=sys.stderr)):
        bar.set_postfix_str(f"{measure.name}, {side}")
        for name, values in measure.measure(outputs, inputs.held_out, inputs.references).items():
            rows.setdefault(name, {})[side] = values
    found = {name: _summary(values) for name, values in rows.items()}
    result = {**inputs.describe(), "n": len(sides["after"]), "metrics": found}
    say(format_evaluation(result))
    check_names(settings, result["metrics"])
    if settings.fail_under or settings.fail_if_worse:
        bars = [f"{name} at least {least:g}" for name, least in thresholds(settings)]
        bars += ["nothing worse than before"] if settings.fail_if_worse else []
        result |= {"bars": bars, "failed": failed(result, settings)}
    _write(inputs, result, rows, sides)
    say(f"\nNumbers, picture, outputs: {inputs.folder / EVALUATION}, {PICTURE}, {OUTPUTS}")
    return result


def outputs_of(inputs: EvaluationInputs, side: str) -> list[str]:
    """N texts of this side: those of its file, or one for each prompt, as this package's pipeline gives it."""
    if side in inputs.outputs:
        return inputs.outputs[side]
    assert inputs.held_out is not None  # a model always has prompts
    prompts, name = inputs.held_out.prompts, inputs.names[side]
    pipe = text2text_pipeline(resolve(name), truncation=True)
    with torch.random.fork_rng(devices=[pipe.device] if pipe.device.type == "cuda" else []):
        torch.manual_seed(inputs.settings.seed)
        stream = pipe((prompt for prompt in prompts), batch_size=inputs.settings.batch_size, **inputs.generation)
        bar = tqdm(stream, total=len(prompts), desc=f"Outputs of {name}", file=sys.stderr)
        return [records[0]["generated_text"] for records in bar]


def failed(result: Mapping[str, Any], settings: EvaluationSettings) -> list[str]:
    """Why the outputs do not meet `fail_under` and `fail_if_worse`, whose names are rows; empty where they do."""
    rows, reasons = result["metrics"], []
    for name, least in thresholds(settings):
        meant = row_of(name, rows, "fail_under")
        mean = rows[meant].get("after")
        if mean is None or not mean >= least:
            reasons.append(f"{meant} is {decimals(mean)}, under {least:g}")
    if settings.fail_if_worse:
        lower_is_better = [row_of(name, rows, "lower_is_better") for name in settings.lower_is_better or ()]
        paired = {name: row["gain"] for name, row in rows.items() if row.get("gain", {"n": 0})["n"] >= MIN_PAIRS}
        if not paired:
            reasons.append(f"no metric has numbers for {MIN_PAIRS} outputs before and after: none can be found worse")
        worse: dict[str, list[str]] = {}
        for name, gain in paired.items():
            if direction(gain) == (1 if name in lower_is_better else -1):
                worse.setdefault(verdict(gain, ("worse (higher)", "worse")), []).append(name)
        reasons += [f"{', '.join(names)}: {how}" for how, names in worse.items()]
    return reasons


def _summary(found: Mapping[str, Values]) -> dict[str, Any]:
    """Means by side, quartiles, and the paired gain where each text has a number on both sides."""
    per_text = {side: values for side, values in found.items() if isinstance(values, np.ndarray)}
    summary: dict[str, Any] = {**found, **{side: mean_scored(values) for side, values in per_text.items()}}
    if "after" in per_text:
        scored = per_text["after"][~np.isnan(per_text["after"])]
        # Least, 25%, median, 75%, most.
        summary["quartiles"] = np.quantile(scored, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(scored) else None
        if "before" in per_text:
            summary["gain"] = paired_gain(per_text["before"].tolist(), per_text["after"].tolist())
    return summary


def _write(inputs: EvaluationInputs, result: Mapping[str, Any], rows: _Rows, sides: Mapping[str, list[str]]) -> None:
    """Picture, outputs, and last the numbers: a folder that has them is complete."""
    inputs.folder.mkdir(parents=True, exist_ok=True)
    per_text = {
        name: {side: values for side, values in found.items() if isinstance(values, np.ndarray)}
        for name, found in rows.items()
    }
    drawn = {name: (found.get("before"), found["after"]) for name, found in per_text.items() if "after" in found}
    gains = {name: result["metrics"][name]["gain"] for name in drawn if "gain" in result["metrics"][name]}
    title = ", ".join(f"{side}: {result[side]}" for side in sides) if len(sides) > 1 else result["after"]
    save_distributions(drawn, gains, f"{title} ({result['n']} outputs)", inputs.folder / PICTURE)
    prompts = {"prompt": inputs.held_out.prompts, "source": inputs.held_out.sources} if inputs.held_out else {}
    scores = {f"{side} {name}": found[side].tolist() for name, found in per_text.items() for side in found}
    write_table(inputs.folder / OUTPUTS, {**prompts, **sides, **scores})
    write_json(inputs.folder / EVALUATION, result)
