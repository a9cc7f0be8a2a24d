"""What can be chosen about `trl-rewards evaluate`: every knob once, beside its default and its help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class EvaluationSettings:
    """What `trl-rewards evaluate` does; a field's help is its flag's help."""

    model: str | None = _option(
        None,
        "What to evaluate: a model's Hub id or folder, or a file of outputs (.jsonl, .json, .csv, .parquet, or .txt "
        "with one output a line). Unset: the preset's model.",
    )
    compare: str | None = _option(
        None,
        "The other side, likewise: the gain is model minus this one. Unset: for a run folder the model that the run "
        "started from, else nothing; 'none': nothing.",
    )
    dataset: str | None = _option(
        None,
        "Prompts: Hub id or file; all rows of its validation, test or only split. Unset: the held-out prompts of the "
        "run folder, else of the preset.",
    )
    text_column: str | None = _option(None, "Column of the prompts. Unset: the run folder's or the preset's.")
    prompt_prefix: str | None = _option(None, "Put in front of every prompt. Unset: likewise.")
    reference_column: str | None = _option(
        None, "Column with the references of metrics that compare, such as ROUGE. Unset: the prompts without prefix."
    )
    output_column: str = _option("output", "Column of the outputs in a file that model names.")
    compare_column: str | None = _option(None, "The same for a file that compare names. Unset: output_column.")
    rows: int | None = _option(None, "Only the first so many prompts.")
    metrics: Sequence[str] = _option(
        ("grammaticality", "neutrality"),
        "Metrics, each by name: grammaticality, neutrality, a reward preset or reward file (.yaml), or anything that "
        "evaluate.load takes (rouge, bertscore, a folder).",
    )
    metric_kwargs: Mapping[str, Mapping[str, Any]] | None = _option(
        None,
        'Arguments of metrics, as JSON: {"bertscore": {"lang": "en"}, "grammaticality": {"config_name": "user/model", '
        '"label": "LABEL_1"}}.',
    )
    preset: str | None = _option(
        None,
        "Named run whose data and judges are the defaults: tiny (bundled, offline) or article (the article's two "
        "classifiers, from the Hub). Unset: the run folder's, else tiny.",
    )
    max_new_tokens: int | None = _option(None, "Most tokens of an output. Unset: the run folder's or the preset's.")
    sample: bool = _option(
        False,
        "Sample as in training, at temperature 1, instead of decoding as each model's generation config says.",
    )
    generation_kwargs: Mapping[str, Any] | None = _option(
        None, 'Further arguments of generate, as JSON: {"num_beams": 4}.'
    )
    batch_size: int = _option(16, "Prompts in a batch of generation.")
    seed: int = _option(0, "Seed of the sampling.")
    output_dir: str | None = _option(None, "Folder for the results. Unset: evaluations/<name of the model>.")
    overwrite: bool = _option(False, "Replace the results of an earlier evaluation in output_dir.")
