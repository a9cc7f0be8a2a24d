"""What an evaluation reads: models by name, files of outputs, prompts and references, checked before torch is loaded.

Leaves out: the settings' own rules (`evaluation_settings.py`), models and metrics (`compare.py`).
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rewards_plugin.assets import bundled_path, is_bundled
from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.hub.secret_search import without_secrets
from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import (
    EvaluationSettings,
    check_model_is_there,
    check_names,
    check_settings,
    is_outputs_file,
)
from trl_rewards_plugin.recipes.evaluate.measures import JUDGED, OWN, check_metrics
from trl_rewards_plugin.recipes.run_presets import get_preset
from trl_rewards_plugin.rows import SKIP, column_texts, existing_file, read_columns
from trl_rewards_plugin.runs.layout import CONFIG, EVALUATION, METRICS
from trl_rewards_plugin.runs.public_names import located, public_name, public_value
from trl_rewards_plugin.runs.read import read_settings
from trl_rewards_plugin.runs.record import versions
from trl_rewards_plugin.text import one_line

if TYPE_CHECKING:
    from trl_rewards_plugin.recipes.data import HeldOut

# As in training: softmax(logits), whatever the checkpoint's own generation config says.
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_beams": 1}

_SECRET_KEY = re.compile(r"(?i)(^|[_-])(token|(api|access)_?key|pass(word|wd)|secret(_?key)?)$")  # not max_new_tokens


class EvaluationInputs:
    """The settings with their defaults, from the run folder that is evaluated, else from a preset; and what they name.

    `names`: "before" (where there is one) and "after" -> model or file of outputs; `files`: those that are files;
    `generates`: whether there are others; `generation`: what `generate` gets. Once `read`: `outputs`: side -> N texts
    of its file; `held_out`: the prompts, None if both sides are files and no data set is given; `references`: N, or
    None; `given`: what metrics can have.
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
        own_name = Path(own_name).stem if "after" in self.files else own_name
        self.folder = Path(settings.output_dir or f"evaluations/{own_name}")
        length = settings.max_new_tokens or self.config.get("response_length") or self.preset.config["response_length"]
        self.generation: dict[str, Any] = {"max_new_tokens": length, **(SAMPLING if settings.sample else {})}
        self.generation |= settings.generation_kwargs or {}
        self._check()
        self._paired = len(self.files) + bool(self.files and (settings.dataset or self.generates)) > 1
        if settings.missing == "skip" and self._paired:
            step = "fix those rows, or read them as '' with --missing empty"
            raise InputError("missing='error' or 'empty' where rows of several files belong together", "'skip'", step)

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

    def read(self) -> None:
        """Reads files and data set into `outputs`, `held_out` and `references`; refuses what does not go together."""
        try:
            self._read()
        except InputError as error:
            if not self._paired:
                raise
            raise InputError(error.expected, error.found, error.next_step.replace(SKIP, "")) from error
        self.given = ["predictions"] + ["references"] * (self.references is not None)
        self.given += ["sources"] * (self.held_out is not None)
        rows = check_metrics(self.settings.metrics, self.settings.metric_kwargs or {}, self.given)
        if rows is not None:
            check_names(self.settings, rows)
        for name in (name for side, name in self.names.items() if side not in self.files):
            check_model_is_there(name)

    def _read(self) -> None:
        settings, config = self.settings, self.config
        tables = {side: read_outputs(name, self.column(side), settings.missing) for side, name in self.files.items()}
        tables = {side: {key: one[: settings.rows] for key, one in table.items()} for side, table in tables.items()}
        self.outputs: dict[str, list[str]] = {side: table[self.column(side)] for side, table in tables.items()}
        source: Mapping[str, Any] = {"dataset": settings.dataset, "eval_dataset": settings.dataset}
        if settings.dataset is None:
            source = config if "dataset" in config else vars(self.preset)
        options: dict[str, str] = {}
        for name in ("text_column", "prompt_prefix"):
            given = getattr(settings, name)
            options[name] = (config.get(name, getattr(self.preset, name)) if given is None else given) or ""
        self.data_name: str | None = None
        self.held_out = self._load_prompts(source, options) if settings.dataset or self.generates else None
        self._check_counts()
        # As the files have them: the prompts without their prefix, and no column that is the outputs of its file.
        places = [
            (self.names[side], {key: one for key, one in table.items() if key != self.column(side)})
            for side, table in tables.items()
        ]
        columns: dict[str, Any] = {}
        if self.held_out is not None:
            columns = {options["text_column"]: self.held_out.sources, **self.held_out.columns}
            places.append((source.get("eval_dataset") or source["dataset"], columns))
        for (left, right), column in itertools.product(
            itertools.combinations(places, 2), dict.fromkeys([options["text_column"], "prompt"])
        ):
            if column in left[1] and column in right[1]:
                _check_order(left, right, column, options["prompt_prefix"])
        self.references = self._find_references(columns, places)

    def _load_prompts(self, source: Mapping[str, Any], options: Mapping[str, str]) -> "HeldOut":
        from trl_rewards_plugin.recipes.data import load_run_data

        settings = self.settings
        seed = self.config.get("seed", settings.seed)
        further: dict[str, Any] = {**options, "missing": settings.missing, "seed": seed}
        data = load_run_data(source["dataset"], source.get("eval_dataset"), **further)
        self.data_name = data.eval_name
        if settings.rows and settings.rows < len(data.held_out):
            self.data_name = f"the first {settings.rows} of {self.data_name.removeprefix('all ')}"
            data = replace(data, held_out=data.held_out.select(range(settings.rows)))
        return data.as_held_out

    def _check_counts(self) -> None:
        counts = {self.names[side]: len(texts) for side, texts in self.outputs.items()}
        if self.held_out is not None:
            counts[self.data_name or "prompts"] = len(self.held_out.prompts)
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count} in {name}" for name, count in counts.items())
            raise InputError("as many outputs as prompts on both sides", found, "give files of the same prompts")
        if self.settings.fail_if_worse and (count := min(counts.values())) < MIN_PAIRS:
            step = f"give more rows, or use fail_under alone: fewer than {MIN_PAIRS} pairs are never found worse"
            raise InputError(f"at least {MIN_PAIRS} rows with fail_if_worse", str(count), step)

    def _find_references(self, columns: Mapping[str, Any], places: Sequence[tuple[str, Any]]) -> list[Any] | None:
        """The column of references of the prompts, without prompts of the outputs; by default the prompts."""
        column = self.settings.reference_column
        if column is None:
            return None if self.held_out is None else self.held_out.sources
        place = places[-1][0]
        if self.held_out is None:
            place, columns = next((one for one in reversed(places) if column in one[1]), places[-1])
        if column not in columns:
            step = f"{did_you_mean(column, columns)}name it with --reference_column"
            step += "" if self.held_out else ", or give the data set that has it (--dataset)"
            raise InputError(f"the column {column!r} in {place}", ", ".join(columns) or "no columns", step)
        values = [str(one) if isinstance(one, int | float) else one for one in columns[column]]
        if None in values and self.settings.missing != "empty":
            step = "write one there, or pass --missing empty (read them as '')"
            expected = f"a reference in every row of the column {column!r} of {place}"
            raise InputError(expected, f"none in row {values.index(None) + 1} (counted from 1)", step)
        return ["" if one is None else one for one in values]

    def references_in_words(self) -> str | None:
        """What the metrics compare with, if one of them may do so."""
        names = self.settings.metrics
        compare = any(name not in (*OWN, *PRESETS) and not name.endswith(ENDINGS) for name in names)
        column = self.settings.reference_column
        return (f"column {column!r}" if column else "the prompts") if compare and self.references else None

    def plan(self) -> dict[str, str]:
        """Label -> text, for `console.format_plan`."""
        lines = {side.capitalize(): self.shown(side) for side in reversed(self.names)}
        if "before" not in self.names:
            lines = {"Outputs" if self.files else "Model": lines["After"]}
        elif self.settings.compare is None:
            lines["Before"] += " (the run started from it)"
        if self.data_name:
            lines["Prompts"] = self.data_name
        if self.generates:
            how = "sampled at temperature 1" if self.settings.sample else "by each model's generation config"
            further = self.settings.generation_kwargs
            lines["Decoding"] = f"{how}, at most {self.generation['max_new_tokens']} tokens"
            lines["Decoding"] += f", {json.dumps(dict(further))}" if further else ""
        if (references := self.references_in_words()) is not None:
            lines["References"] = references
        lines["Metrics"] = self._measured_by()
        return lines

    def shown(self, side: str) -> str:
        """The model or file of this side, and the file's column."""
        name = self.names[side]
        column = f" (column {self.column(side)})" if side in self.files and not name.lower().endswith(".txt") else ""
        return public_name(name) + column

    def _measured_by(self) -> str:
        """The metrics with their judges and other arguments, in words."""
        shown = []
        for name in self.settings.metrics:
            given = _publishable((self.settings.metric_kwargs or {}).get(name, {}))
            words = [f"{'judge' if key == 'config_name' else key}: {value}" for key, value in given.items()]
            if name in JUDGED and "config_name" not in given:
                words.insert(0, f"judge of the preset {self.preset.name}")
            shown.append(_publishable(name) + (f" ({', '.join(words)})" if words else ""))
        return ", ".join(shown)

    def describe(self) -> dict[str, Any]:
        """What is evaluated, and how: the metadata of the result."""
        arguments = self.settings.metric_kwargs or {}
        return {
            "after": self.shown("after"),
            "before": self.shown("before") if "before" in self.names else None,
            "prompts": self.data_name,
            "references": self.references_in_words(),
            "decoding": self.generation | {"seed": self.settings.seed} if self.generates else None,
            "measured_by": self._measured_by(),
            "metric_kwargs": {_publishable(name): _publishable(given) for name, given in arguments.items()},
            "versions": versions(),
        }


def _publishable(value: Any) -> Any:
    """A metric's name or arguments without this machine's paths, and without secrets."""
    if isinstance(value, Mapping):
        return {key: "(secret)" if _SECRET_KEY.search(str(key)) else _publishable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_publishable(one) for one in value]
    return without_secrets(public_value(value)) if isinstance(value, str) else public_value(value)


def read_outputs(name: str, column: str, missing: str = "error") -> dict[str, list[Any]]:
    """A file of outputs by column, the rows whose output is missing as `missing` says (see `rows.without_missing`).

    Empty outputs are outputs: a model may have nothing to say.
    """
    columns = read_columns(existing_file(bundled_path(name) if is_bundled(name) else name), column)
    if columns and column not in columns:
        step = f"{did_you_mean(column, columns)}name the column of outputs (--output_column)"
        raise InputError(f"the column {column!r} in {name}", ", ".join(columns), step)
    step = "write the outputs as texts, or name another column"
    texts = column_texts(columns.get(column, []), column, missing, name, blank=True, step=step)
    return {key: [values[place] for place in texts] for key, values in columns.items()} | {column: [*texts.values()]}


def _check_order(left: tuple[str, Any], right: tuple[str, Any], column: str, prefix: str) -> None:
    """Refuses two files, each with its columns, whose texts in `column` are not the same, row by row."""
    pairs = zip(left[1][column], right[1][column], strict=True)
    for number, pair in enumerate(pairs, 1):
        # Some tools leave a prefix in front, each its own, or other line ends.
        first, second = (" ".join(str("" if text is None else text).removeprefix(prefix).split()) for text in pair)
        if first != second and not (first and second and (first.endswith(second) or second.endswith(first))):
            found = f"row {number}: {one_line(first, 80)!r} and {one_line(second, 80)!r} in the column {column!r}"
            step = "sort the rows of one file as the other's; if these texts are to differ, rename one of the columns"
            raise InputError(f"the same prompts in the same order in {left[0]} and {right[0]}", found, step)
