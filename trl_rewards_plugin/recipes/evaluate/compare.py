"""Evaluates a model, or a file of outputs, with any metrics; against a second side also the paired gain and interval.

Leaves out: what needs no model (`evaluation_settings.py`), and the metrics of a run itself (`before_after.py`).
"""

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.charts.histograms import save_distributions
from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS, paired_gain
from trl_rewards_plugin.pipelines import text2text_pipeline
from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.recipes.before_after import HeldOut, mean_scored
from trl_rewards_plugin.recipes.console import decimals, direction, format_evaluation, format_plan, verdict
from trl_rewards_plugin.recipes.data import load_run_data
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import (
    EvaluationInputs,
    EvaluationSettings,
    read_outputs,
    thresholds,
)
from trl_rewards_plugin.recipes.evaluate.measures import OWN, Values, load_measures
from trl_rewards_plugin.runs.layout import EVALUATION, OUTPUTS
from trl_rewards_plugin.runs.public_names import public_name
from trl_rewards_plugin.runs.record import versions
from trl_rewards_plugin.runs.writing import write_json, write_table
from trl_rewards_plugin.terminal import say

PICTURE = "distributions.png"

_Rows: TypeAlias = Mapping[str, Mapping[str, Values]]  # row name -> side ("before", "after") -> values


def evaluate_outputs(settings: EvaluationSettings) -> dict[str, Any]:
    """Checks, generates, measures, prints a table, writes JSON, picture and outputs; returns what the JSON holds."""
    job = EvaluationJob(settings)
    say(format_plan(job.plan()) + "\n")
    measures = load_measures(
        settings.metrics,
        judge="tiny" if job.preset.name == "tiny" else None,
        arguments=settings.metric_kwargs or {},
        given=["predictions"] + (["references", "sources"] if job.held_out else []),
    )
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
    result = job.describe(len(sides["after"])) | {"metrics": {name: _summary(found) for name, found in rows.items()}}
    say(format_evaluation(result))
    check_names(settings, result["metrics"])
    if settings.fail_under or settings.fail_if_worse:
        bars = [f"{name} at least {least:g}" for name, least in thresholds(settings)]
        bars += ["nothing worse than before"] if settings.fail_if_worse else []
        result |= {"bars": bars, "failed": failed(result, settings)}
    _write(job, result, rows, sides)
    say(f"\nNumbers, picture, outputs: {job.folder / EVALUATION}, {PICTURE}, {OUTPUTS}")
    return result


class EvaluationJob(EvaluationInputs):
    """One evaluation; `held_out`: the prompts, None if both sides are files and no data set is given."""

    def __init__(self, settings: EvaluationSettings):
        super().__init__(settings)
        for side, name in self.names.items():
            if side not in self.files:
                check_seq2seq_model(resolve(name))
        texts = {side: read_outputs(name, self.column(side), settings.missing) for side, name in self.files.items()}
        self._read = {side: outputs[: settings.rows] for side, outputs in texts.items()}
        self.data_name: str | None = None
        self.held_out = self._load_prompts()
        compare = any(name not in (*OWN, *PRESETS) and not name.endswith(ENDINGS) for name in settings.metrics)
        references = f"column {settings.reference_column!r}" if settings.reference_column else "the prompts"
        self.references = references if self.held_out and compare else None
        self._check_counts()

    def _load_prompts(self) -> HeldOut | None:
        settings, config = self.settings, self.config
        options: dict[str, Any] = {"missing": settings.missing}
        for name in ("text_column", "prompt_prefix"):
            given = getattr(settings, name)
            options[name] = config.get(name, getattr(self.preset, name)) if given is None else given
        options["prompt_prefix"] = options["prompt_prefix"] or ""
        if settings.dataset is not None:
            data = load_run_data(settings.dataset, settings.dataset, **options)
        elif not self.generates:
            return None
        else:
            source = config if "dataset" in config else vars(self.preset)
            options["seed"] = config.get("seed", settings.seed)
            data = load_run_data(source["dataset"], source.get("eval_dataset"), **options)
        self.data_name = data.eval_name
        if settings.rows and settings.rows < len(data.held_out):
            self.data_name = f"the first {settings.rows} of {self.data_name.removeprefix('all ')}"
            data = replace(data, held_out=data.held_out.select(range(settings.rows)))
        return data.as_held_out

    def _check_counts(self) -> None:
        counts = {self.names[side]: len(texts) for side, texts in self._read.items()}
        if self.held_out is not None:
            counts[self.data_name or "prompts"] = len(self.held_out.prompts)
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count} in {name}" for name, count in counts.items())
            raise InputError("as many outputs as prompts on both sides", found, "give files of the same prompts")
        if self.settings.fail_if_worse and (count := min(counts.values())) < MIN_PAIRS:
            step = f"give more rows, or use fail_under alone: fewer than {MIN_PAIRS} pairs are never found worse"
            raise InputError(f"at least {MIN_PAIRS} rows with fail_if_worse", str(count), step)
        column = self.settings.reference_column
        known = list(self.held_out.columns) if self.held_out else []
        if column is not None and column not in known:
            step = f"{did_you_mean(column, known)}name a column of the data set"
            raise InputError(f"the column {column!r} of references", ", ".join(known) or "no columns", step)

    def plan(self) -> dict[str, str]:
        """Label -> text, for `console.format_plan`."""
        lines = {side.capitalize(): self._shown(side) for side in reversed(self.names)}
        if self.settings.compare is None and "before" in self.names:
            lines["Before"] += " (the run started from it)"
        if self.data_name:
            lines["Prompts"] = self.data_name
        if self.generates:
            how = "sampled at temperature 1" if self.settings.sample else "by each model's generation config"
            further = self.settings.generation_kwargs
            lines["Decoding"] = f"{how}, at most {self.generation['max_new_tokens']} tokens"
            lines["Decoding"] += f", {json.dumps(dict(further))}" if further else ""
        if self.references:
            lines["References"] = self.references
        lines["Metrics"] = ", ".join(self.settings.metrics)
        if {"grammaticality", "neutrality"} & set(self.settings.metrics):
            lines["Metrics"] += f"; judges of the preset {self.preset.name}"
        return lines

    def _shown(self, side: str) -> str:
        name = self.names[side]
        column = f" (column {self.column(side)})" if side in self.files and not name.lower().endswith(".txt") else ""
        return public_name(name) + column

    def outputs_of(self, side: str) -> list[str]:
        """N texts of this side: those of its file, or one for each prompt, as this package's pipeline gives it."""
        if side in self._read:
            return self._read[side]
        assert self.held_out is not None  # a model always has prompts
        prompts, name = self.held_out.prompts, self.names[side]
        pipe = text2text_pipeline(resolve(name), truncation=True)
        with torch.random.fork_rng(devices=[pipe.device] if pipe.device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed)
            stream = pipe((prompt for prompt in prompts), batch_size=self.settings.batch_size, **self.generation)
            bar = tqdm(stream, total=len(prompts), desc=f"Outputs of {name}", file=sys.stderr)
            return [records[0]["generated_text"] for records in bar]

    def describe(self, count: int) -> dict[str, Any]:
        """What was evaluated, and how: the metadata of the result."""
        return {
            "after": self._shown("after"),
            "before": self._shown("before") if "before" in self.names else None,
            "prompts": self.data_name,
            "references": self.references,
            "n": count,
            "decoding": self.generation | {"seed": self.settings.seed} if self.generates else None,
            "judges": self.preset.name,
            "versions": versions(),
        }


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


def _write(job: EvaluationJob, result: Mapping[str, Any], rows: _Rows, sides: Mapping[str, list[str]]) -> None:
    """Picture, outputs, and last the numbers: a folder that has them is complete."""
    job.folder.mkdir(parents=True, exist_ok=True)
    per_text = {
        name: {side: values for side, values in found.items() if isinstance(values, np.ndarray)}
        for name, found in rows.items()
    }
    drawn = {name: (found.get("before"), found["after"]) for name, found in per_text.items() if "after" in found}
    gains = {name: result["metrics"][name]["gain"] for name in drawn if "gain" in result["metrics"][name]}
    title = ", ".join(f"{side}: {result[side]}" for side in sides) if len(sides) > 1 else result["after"]
    save_distributions(drawn, gains, f"{title} ({result['n']} outputs)", job.folder / PICTURE)
    prompts = {"prompt": job.held_out.prompts, "source": job.held_out.sources} if job.held_out else {}
    scores = {f"{side} {name}": found[side].tolist() for name, found in per_text.items() for side in found}
    write_table(job.folder / OUTPUTS, {**prompts, **sides, **scores})
    write_json(job.folder / EVALUATION, result)
