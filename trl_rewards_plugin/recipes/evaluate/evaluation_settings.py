"""The settings of `trl-rewards evaluate`, each with its default, help and rules.

Leaves out: what they lead to (`evaluation_inputs.py`).
"""

# ruff: noqa: RUF009  (`option` returns a dataclass field)
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_rewards_plugin.assets import is_bundled
from trl_rewards_plugin.errors import InputError, did_you_mean, is_unreached, nearest
from trl_rewards_plugin.options import option
from trl_rewards_plugin.places import check_model_name, check_tokenizer_files, in_cache, missing_file, what_to_do
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.recipes.run_presets import get_preset
from trl_rewards_plugin.rewards.files.file_content import preset_content
from trl_rewards_plugin.rows import FORMATS, existing_file, missing_option
from trl_rewards_plugin.runs.layout import check_saved_model

_SIDE = "a folder with a model, the id of one on the Hub, or a file of outputs"


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
    reference_column: str | None = option(
        None,
        "Column of the references, in the outputs without a dataset. Unset: the prompts without their prefix.",
    )
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
        'Arguments of metrics, as JSON: {"grammaticality": {"config_name": "tiny"}}, or {"bertscore": {"lang": "en"}, '
        '"neutrality": {"config_name": "user/model", "label": "neutral"}}.',
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
    fail_if_worse: bool = option(False, "Exit with code 3 if a metric is worse than that of --compare.")
    lower_is_better: list[str] | None = option(None, "Metrics better if low, for fail_if_worse: toxicity, perplexity.")


def is_outputs_file(name: str) -> bool:
    """By its ending; else it is a model, as is what describes one."""
    return Path(name).suffix.lower() in FORMATS and Path(name).name != "config.json"


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
            if nearest(Path(given).suffix, FORMATS) and not Path(given).exists():
                raise missing_file(_SIDE, f"{given!r}: no such file or folder", Path(given))
            check_model_name(given, _SIDE)
            check_saved_model(Path(given))
            check_tokenizer_files(given)
    for metric in settings.metrics:
        if metric.endswith(ENDINGS):
            preset_content(metric)
        elif not Path(metric).exists() and (step := _what_is_meant(metric)):
            raise InputError("the name of a metric", repr(metric), step)
    thresholds(settings)
    if any("," in row for row in settings.lower_is_better or ()):
        raise InputError("names in lower_is_better", str(settings.lower_is_better), "separate them with spaces")


def check_model_is_there(name: str) -> None:
    """Refuses the name of a model that is neither here nor to be had from the Hub."""
    if is_bundled(name) or Path(name).exists() or in_cache(name):
        return
    from trl_rewards_plugin.hub.remote import lookup_failure

    if error := lookup_failure(name, "model"):
        hub = "is not reached" if is_unreached(error) else "has no model of that name"
        step = what_to_do(error, "check the spelling", name)
        raise InputError(_SIDE, f"{name!r}, which is not here, and the Hub {hub}", step)


def _what_is_meant(name: str) -> str | None:
    """The next step for several names in one, or a row of the table in place of its metric; neutrality is both."""
    of = _metrics_with(name)
    if "," in name:
        return f"separate them with spaces: --metrics {name.replace(',', ' ')}"
    if not of or name == "neutrality":
        return None
    further = ", or --metrics grammaticality for its probability" if name == "acceptability" else ""
    return f"it is a row of {' and '.join(of)}: --metrics {of[-1]}{further}"


def _metrics_with(row: str) -> list[str]:
    """The metrics with a row of this name, or one that ends in it; of all that have a reward, tiny."""
    if re.fullmatch(r"rouge(\d+|L|Lsum)", row):
        return ["rouge"]
    preset, _, last = row.rpartition(" ")
    if last == "reward" and preset in ("", *PRESETS):
        return [preset or "tiny"]
    return [preset for preset, entries in PRESETS.items() if row in [entry["name"] for entry in entries]]


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


def check_names(settings: EvaluationSettings, rows: Collection[str]) -> None:
    """Refuses a name in `fail_under` or `lower_is_better` that is no row of the table, or the end of several."""
    for name, _ in thresholds(settings):
        row_of(name, rows, "fail_under")
    for name in settings.lower_is_better or ():
        row_of(name, rows, "lower_is_better")


def row_of(name: str, rows: Collection[str], setting: str) -> str:
    """The one row of the table called `name`, or ending in it."""
    meant = [name] if name in rows else [row for row in rows if row.endswith(f" {name}")]
    if len(meant) != 1:
        found = f"{name!r}, which is {' and '.join(meant) or 'not one of them'}"
        step = did_you_mean(name, [*rows, *(row.split()[-1] for row in rows)]) if not meant else ""
        of = [] if meant else _metrics_with(name)
        step += "name one in full" + (f", or add the metric that has it (--metrics {of[-1]})" if of else "")
        raise InputError(f"a row of the table in {setting}: {', '.join(rows)}", found, step)
    return meant[0]
