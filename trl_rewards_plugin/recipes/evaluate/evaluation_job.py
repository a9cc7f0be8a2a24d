"""EvaluationJob: the texts that `trl-rewards evaluate` measures, those of models beside their prompts.

Leaves out: what needs no model (evaluation_settings.py), and measuring.
"""

import json
import sys
from dataclasses import replace
from typing import Any

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.recipes.before_after import HeldOut
from trl_rewards_plugin.recipes.data import load_run_data
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import (
    EvaluationInputs,
    EvaluationSettings,
    is_outputs_file,
    read_outputs,
)
from trl_rewards_plugin.recipes.evaluate.measures import OWN, Measure, load_measures
from trl_rewards_plugin.runs.public_names import public_name
from trl_rewards_plugin.runs.record import versions


class EvaluationJob(EvaluationInputs):
    """One evaluation; input that cannot work is refused.

    `held_out`: the prompts, None if both sides are files and no data set is given.
    """

    def __init__(self, settings: EvaluationSettings):
        from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model

        super().__init__(settings)
        for model in self.names.values():
            if not is_outputs_file(model):
                check_seq2seq_model(resolve(model))
        files = {side: name for side, name in self.names.items() if is_outputs_file(name)}
        texts = {side: read_outputs(name, self._column(side), settings.missing) for side, name in files.items()}
        self._read = {side: outputs[: settings.rows] for side, outputs in texts.items()}
        self.data_name: str | None = None
        self.held_out = self._load_prompts()
        compare = any(name not in (*OWN, *PRESETS) and not name.endswith(ENDINGS) for name in settings.metrics)
        references = f"column {settings.reference_column!r}" if settings.reference_column else "the prompts"
        self.references = references if self.held_out and compare else None
        self._check_counts()

    def _default(self, name: str) -> Any:
        given = getattr(self.settings, name)
        return given if given is not None else self.config.get(name, getattr(self.preset, name, None))

    def _load_prompts(self) -> HeldOut | None:
        settings, config = self.settings, self.config
        options = {"text_column": self._default("text_column"), "prompt_prefix": self._default("prompt_prefix") or ""}
        options["missing"] = settings.missing
        if settings.dataset is not None:
            data = load_run_data(settings.dataset, settings.dataset, **options)
        elif len(self._read) == len(self.names):
            return None
        else:
            source = config if "dataset" in config else vars(self.preset)
            seed = config.get("seed", settings.seed)
            data = load_run_data(source["dataset"], source.get("eval_dataset"), seed=seed, **options)
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
        if len(self._read) < len(self.names):
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
        """The name to show for a side; for a file, with its column."""
        name = self.names[side]
        column = f" (column {self._column(side)})" if side in self._read and not name.lower().endswith(".txt") else ""
        return public_name(name) + column

    def load_measures(self) -> list[Measure]:
        """The metrics, with their models."""
        given = ["predictions"] + (["references", "sources"] if self.held_out else [])
        judge = "tiny" if self.preset.name == "tiny" else None
        arguments = self.settings.metric_kwargs or {}
        return load_measures(self.settings.metrics, judge=judge, arguments=arguments, given=given)

    def outputs_of(self, side: str) -> list[str]:
        """N texts of this side: those of its file, or one for each prompt, as this package's pipeline gives it.

        Sampled ones depend on seed and batch size; the global random state stays as it was.
        """
        if side in self._read:
            return self._read[side]
        import torch
        from tqdm.auto import tqdm

        from trl_rewards_plugin.pipelines import text2text_pipeline

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
        generated = len(self._read) < len(self.names)
        return {
            "after": self._shown("after"),
            "before": self._shown("before") if "before" in self.names else None,
            "prompts": self.data_name,
            "references": self.references,
            "n": count,
            "decoding": self.generation | {"seed": self.settings.seed} if generated else None,
            "judges": self.preset.name,
            "versions": versions(),
        }
