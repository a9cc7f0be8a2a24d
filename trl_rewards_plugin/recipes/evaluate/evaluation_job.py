"""EvaluationJob: the settings of `trl-rewards evaluate`, checked before a model is loaded, and the texts to measure.

Defaults come from the run folder that is evaluated, else from a preset. Leaves out: measuring.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from trl_rewards_plugin.assets import bundled_path, is_bundled, resolve
from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.recipes.before_after import HeldOut
from trl_rewards_plugin.recipes.data import load_run_data
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationSettings, check_settings, is_outputs_file
from trl_rewards_plugin.recipes.evaluate.measures import Measure, load_measures
from trl_rewards_plugin.recipes.run_presets import Preset, get_preset
from trl_rewards_plugin.rows import column_texts, existing_file, read_columns
from trl_rewards_plugin.runs.environment import versions
from trl_rewards_plugin.runs.layout import CONFIG, EVALUATION, METRICS
from trl_rewards_plugin.runs.public_names import public_name
from trl_rewards_plugin.runs.read import read_settings

# As in training: softmax(logits), whatever the checkpoint's own generation config says.
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_beams": 1}


class EvaluationJob:
    """One evaluation; input that cannot work is refused.

    `names`: "before" (where there is one) and "after" -> model or file of outputs; `generation`: arguments of
    `generate`; `held_out`: the prompts, None if both sides are files and no data set is given.
    """

    def __init__(self, settings: EvaluationSettings):
        check_settings(settings)
        self.settings = settings
        folder = Path(settings.model or "")
        is_run = (folder / CONFIG).is_file() and (folder / METRICS).is_file()
        self.config: dict[str, Any] = read_settings(folder) if settings.model and is_run else {}
        self.preset: Preset = get_preset(settings.preset or self.config.get("preset") or "tiny")
        before = self.config.get("model") if settings.compare is None else settings.compare
        self.names: dict[str, str] = {} if before is None or before.lower() == "none" else {"before": before}
        self.names["after"] = settings.model or self.preset.model
        own_name = public_name(self.names["after"]).rstrip("/").split("/")[-1].replace(":", "-")
        self.folder = Path(settings.output_dir or f"evaluations/{own_name}")
        length = settings.max_new_tokens or self.config.get("response_length") or self.preset.config["response_length"]
        self.generation: dict[str, Any] = {"max_new_tokens": length, **(SAMPLING if settings.sample else {})}
        self.generation |= settings.generation_kwargs or {}
        self._check()
        files = {side: name for side, name in self.names.items() if is_outputs_file(name)}
        texts = {side: read_outputs(name, self._column(side), settings.missing) for side, name in files.items()}
        self._read = {side: outputs[: settings.rows] for side, outputs in texts.items()}
        self.data_name: str | None = None
        self.held_out = self._load_prompts()
        self._check_counts()

    def _column(self, side: str) -> str:
        column = self.settings.compare_column if side == "before" else None
        return column or self.settings.output_column

    def _default(self, name: str) -> Any:
        given = getattr(self.settings, name)
        return given if given is not None else self.config.get(name, getattr(self.preset, name, None))

    def _check(self) -> None:
        from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model

        settings = self.settings
        if settings.fail_if_worse and "before" not in self.names:
            step = "name what to compare with: --compare MODEL_OR_FILE"
            raise InputError("something to be worse than, with fail_if_worse", "nothing to compare with", step)
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not existing.is_dir():
            raise InputError("a folder as output_dir", f"the file {existing}", "choose another output_dir")
        if (self.folder / EVALUATION).exists() and not settings.overwrite:
            step = "choose another output_dir, or pass overwrite (--overwrite) to replace the results"
            raise InputError("an output folder without an evaluation", f"{EVALUATION} in {self.folder}", step)
        files = [name for name in self.names.values() if is_outputs_file(name)]
        if len(files) == len(self.names) and settings.dataset is None and settings.text_column is not None:
            step = "add --dataset; the column of the outputs is --output_column"
            raise InputError("a dataset of prompts beside text_column", "outputs alone", step)
        paired = len(files) + bool(files and (settings.dataset or len(files) < len(self.names)))
        if settings.missing == "skip" and paired > 1:
            step = "fix those rows, or read them as '' with --missing empty"
            raise InputError("missing='error' or 'empty' where rows of several files belong together", "'skip'", step)
        for model in self.names.values():
            if model not in files:
                check_seq2seq_model(resolve(model))

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
        column = self.settings.reference_column
        known = list(self.held_out.columns) if self.held_out else []
        if column is not None and column not in known:
            step = "name a column of the data set"
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
            "references": self.settings.reference_column or "the prompts without prefix" if self.held_out else None,
            "n": count,
            "decoding": self.generation | {"seed": self.settings.seed} if generated else None,
            "judges": self.preset.name,
            "versions": versions(),
        }


def read_outputs(name: str, column: str, missing: str = "error") -> list[str]:
    """The column of outputs of a JSONL, JSON, CSV, TSV or parquet file, or the lines of a text file.

    Empty outputs are outputs: a model may have nothing to say. InputError for no such file or column, no rows, or a
    row that holds no text; for `missing` see `rows.without_missing`.
    """
    path = existing_file(bundled_path(name) if is_bundled(name) else name)
    columns = read_columns(path, column)
    if columns and column not in columns:
        step = f"{did_you_mean(column, columns)}name the column of outputs (--output_column)"
        raise InputError(f"the column {column!r} in {name}", ", ".join(columns), step)
    step = "write the outputs as texts, or name another column"
    return list(column_texts(columns.get(column, []), column, missing, name, blank=True, step=step).values())
