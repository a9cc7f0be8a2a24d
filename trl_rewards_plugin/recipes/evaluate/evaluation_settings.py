"""The settings of `trl-rewards evaluate`, each with its default and help, and what they lead to without a model."""

# ruff: noqa: RUF009  (`option` returns a dataclass field)
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_rewards_plugin.assets import bundled_path, is_bundled
from trl_rewards_plugin.errors import InputError, check_hub_name, check_tokenizer_files, did_you_mean
from trl_rewards_plugin.options import option
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.recipes.run_presets import get_preset
from trl_rewards_plugin.rewards.files.file_content import preset_content
from trl_rewards_plugin.rows import (
    FORMATS,
    column_texts,
    existing_file,
    format_of,
    missing_option,
    read_columns,
    read_rows,
)
from trl_rewards_plugin.runs.layout import CONFIG, EVALUATION, METRICS
from trl_rewards_plugin.runs.public_names import located, public_name
from trl_rewards_plugin.runs.read import read_settings

# As in training: softmax(logits), whatever the checkpoint's own generation config says.
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_beams": 1}


@dataclass(frozen=True)
class EvaluationSettings:
    """What `trl-rewards evaluate` does; a field's help is its flag's help."""

    model: str | None = option(
        None,
        "What to evaluate: a model's Hub id or folder, or a file of outputs (.jsonl, .json, .csv, .tsv, .parquet, or "
        ".txt with one output per line). Unset: the preset's model.",
    )
    compare: str | None = option(
        None,
        "What to compare with, given the same way: the gain is model minus this one. Unset: for a run folder, the "
        "model that the run started from, otherwise nothing; 'none': nothing.",
    )
    dataset: str | None = option(
        None,
        "Prompts: Hub id or file; all rows of its validation, test or only split. Unset: the held-out prompts of the "
        "run folder, otherwise those of the preset.",
    )
    text_column: str | None = option(None, "Column of the prompts. Unset: the run folder's or the preset's.")
    prompt_prefix: str | None = option(None, "Prepended to every prompt. Unset: the run folder's or the preset's.")
    missing: str = missing_option()
    reference_column: str | None = option(None, "Column of the references. Unset: the prompts without their prefix.")
    output_column: str = option("output", "Column of the outputs if --model is a file.")
    compare_column: str | None = option(None, "Column of the outputs if --compare is a file. Unset: output_column.")
    rows: int | None = option(None, "Number of prompts to evaluate, from the first. Unset: all.")
    metrics: list[str] = field(
        default_factory=lambda: ["grammaticality", "neutrality"],
        metadata={
            "help": "Metrics, each by name: grammaticality, neutrality, a reward preset or reward file (.yaml), or "
            "anything that evaluate.load takes (rouge, bertscore, a folder)."
        },
    )
    metric_kwargs: dict[str, dict[str, Any]] | None = option(
        None,
        'Arguments of metrics, as JSON: {"bertscore": {"lang": "en"}, "grammaticality": {"config_name": '
        '"user/model", "label": "LABEL_1"}}.',
    )
    preset: str | None = option(
        None,
        "Named run whose data and judges are the defaults: tiny (bundled, offline) or article (the article's two "
        "classifiers, from the Hub). Unset: the run folder's, otherwise tiny.",
    )
    max_new_tokens: int | None = option(None, "Most tokens of an output. Unset: the run folder's or the preset's.")
    sample: bool = option(False, "Sample as in training, at temperature 1, not by the generation config.")
    generation_kwargs: dict[str, Any] | None = option(None, 'Further arguments of generate as JSON: {"num_beams": 4}.')
    batch_size: int = option(16, "Batch size of generation.")
    seed: int = option(0, "Sampling seed.")
    output_dir: str | None = option(None, "Folder for the results. Unset: evaluations/<model name>.")
    overwrite: bool = option(False, "Replace the results of an earlier evaluation in output_dir.")
    fail_under: list[str] | None = option(
        None, "Exit with code 3 if a mean is below a number: reward=0.5. A row is named in full or by its last word."
    )
    fail_if_worse: bool = option(False, "Exit with code 3 if a metric's gain over --compare has its interval below 0.")
    lower_is_better: list[str] | None = option(None, "Metrics better if low, for fail_if_worse: toxicity, perplexity.")


def is_outputs_file(name: str) -> bool:
    """By its ending; else it is a model."""
    return Path(name).suffix.lower() in FORMATS


def check_settings(settings: EvaluationSettings) -> None:
    """Refuses at once, with nothing loaded, what cannot work whatever the models and texts are."""
    if settings.preset is not None:
        get_preset(settings.preset)
    for name in ("rows", "max_new_tokens", "batch_size"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"{name} of at least 1", str(value), f"leave {name} out for its default")
    for given in filter(None, (settings.model, settings.compare, settings.dataset)):
        if is_bundled(given):
            continue
        if is_outputs_file(given):
            existing_file(given)
        elif given is not settings.dataset:
            check_hub_name(given, "a folder with a model, or the id of one on the Hub")
            check_tokenizer_files(given)
    for metric in settings.metrics:
        if metric.endswith(ENDINGS):
            preset_content(metric)
        elif not Path(metric).exists() and (step := _what_is_meant(metric)):
            raise InputError("the name of a metric", repr(metric), step)
    thresholds(settings)
    if any("," in row for row in settings.lower_is_better or ()):
        raise InputError("names in lower_is_better", str(settings.lower_is_better), "separate them with spaces")


def _what_is_meant(name: str) -> str | None:
    """The next step for several names in one, or a row of the table in place of its metric; neutrality is both."""
    of = [preset for preset, entries in PRESETS.items() if name in [entry["name"] for entry in entries]]
    if "," in name:
        return f"separate them with spaces: --metrics {name.replace(',', ' ')}"
    if re.fullmatch(r"rouge(\d+|L|Lsum)", name):
        return "it is a row of rouge: --metrics rouge"
    if not of or name == "neutrality":
        return None
    further = ", or --metrics grammaticality for its probability" if name == "acceptability" else ""
    return f"it is a row of {' and '.join(of)}: --metrics {of[-1]}{further}"


def thresholds(settings: EvaluationSettings) -> list[tuple[str, float]]:
    """Rows of the table, each with the least mean that it may have, as `fail_under` says."""
    found = []
    for given in settings.fail_under or ():
        match = re.fullmatch(r"([^<>=!,]*[^<>=!,\s])=(-?\d*\.?\d+)", given)
        if not match:
            step = "for example --fail-under reward=0.5 rougeL=0.3: separate with spaces, with none around ="
            raise InputError("fail_under as NAME=NUMBER", repr(given), step)
        found.append((match[1], float(match[2])))
    return found


class EvaluationInputs:
    """The settings with their defaults, from the run folder that is evaluated, else from a preset.

    `names`: "before" (where there is one) and "after" -> model or file of outputs; `files`: those that are files;
    `generates`: whether there are others; `generation`: what `generate` gets.
    """

    def __init__(self, settings: EvaluationSettings):
        check_settings(settings)
        self.settings = settings
        folder = Path(settings.model or "")
        is_run = (folder / CONFIG).is_file() and (folder / METRICS).is_file()
        self.config: dict[str, Any] = located(read_settings(folder), folder) if settings.model and is_run else {}
        self.preset = get_preset(settings.preset or self.config.get("preset") or "tiny")
        before = self.config.get("model") if settings.compare is None else settings.compare
        self.names: dict[str, str] = {} if before is None or before.lower() == "none" else {"before": before}
        self.names["after"] = settings.model or self.preset.model
        self.files = {side: name for side, name in self.names.items() if is_outputs_file(name)}
        self.generates = len(self.files) < len(self.names)
        own_name = public_name(self.names["after"]).rstrip("/").split("/")[-1].replace(":", "-")
        self.folder = Path(settings.output_dir or f"evaluations/{own_name}")
        length = settings.max_new_tokens or self.config.get("response_length") or self.preset.config["response_length"]
        self.generation: dict[str, Any] = {"max_new_tokens": length, **(SAMPLING if settings.sample else {})}
        self.generation |= settings.generation_kwargs or {}
        self._check()

    def column(self, side: str) -> str:
        """The column of the outputs, if this side is a file."""
        column = self.settings.compare_column if side == "before" else None
        return column or self.settings.output_column

    def _check(self) -> None:
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
        if not self.generates and settings.dataset is None and settings.text_column is not None:
            step = "add --dataset; the column of the outputs is --output_column"
            raise InputError("a dataset of prompts beside text_column", "outputs alone", step)
        paired = len(self.files) + bool(self.files and (settings.dataset or self.generates))
        if settings.missing == "skip" and paired > 1:
            step = "fix those rows, or read them as '' with --missing empty"
            raise InputError("missing='error' or 'empty' where rows of several files belong together", "'skip'", step)
        for side, name in self.files.items():
            outputs_file(name, self.column(side))


def read_outputs(name: str, column: str, missing: str = "error") -> list[str]:
    """The column of outputs of a JSONL, JSON, CSV, TSV or parquet file, or the lines of a text file.

    Empty outputs are outputs: a model may have nothing to say. For `missing` see `rows.without_missing`.
    """
    values = read_columns(outputs_file(name, column), column).get(column, [])
    step = "write the outputs as texts, or name another column"
    return list(column_texts(values, column, missing, name, blank=True, step=step).values())


def outputs_file(name: str, column: str) -> Path:
    """The file of outputs called `name`; refused if it has rows, none of which has the column."""
    path = existing_file(bundled_path(name) if is_bundled(name) else name)
    found: dict[str, Any] = {}
    for row in read_rows(str(path), format_of(str(path)), column):
        if column in row:
            return path
        found |= row
    if found:
        step = f"{did_you_mean(column, found)}name the column of outputs (--output_column)"
        raise InputError(f"the column {column!r} in {name}", ", ".join(found), step)
    return path
