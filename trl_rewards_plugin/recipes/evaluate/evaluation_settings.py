"""The settings of `trl-rewards evaluate`, each with its default and its help."""

# ruff: noqa: RUF009  (`option` returns a dataclass field)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl_rewards_plugin.options import option
from trl_rewards_plugin.rows import missing_option


@dataclass(frozen=True)
class EvaluationSettings:
    """What `trl-rewards evaluate` does; a field's help is its flag's help."""

    model: str | None = option(
        None,
        "What to evaluate: a model's Hub id or folder, or a file of outputs (.jsonl, .json, .csv, .tsv, .parquet, or "
        ".txt with one output a line). Unset: the preset's model.",
    )
    compare: str | None = option(
        None,
        "What to compare with, likewise: the gain is model minus this one. Unset: for a run folder, the model that "
        "the run started from, otherwise nothing; 'none': nothing.",
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
        None, "Column of the references, for metrics such as ROUGE. Unset: the prompts without their prefix."
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
        'Arguments of metrics, as JSON: {"bertscore": {"lang": "en"}, "grammaticality": {"config_name": '
        '"user/model", "label": "LABEL_1"}}.',
    )
    preset: str | None = option(
        None,
        "Named run whose data and judges are the defaults: tiny (bundled, offline) or article (the article's two "
        "classifiers, from the Hub). Unset: the run folder's, otherwise tiny.",
    )
    max_new_tokens: int | None = option(
        None, "Maximum length of an output in tokens. Unset: the run folder's or the preset's."
    )
    sample: bool = option(
        False, "Sample as in training, at temperature 1, instead of decoding by each model's generation config."
    )
    generation_kwargs: dict[str, Any] | None = option(
        None, 'Further arguments of generate, as JSON: {"num_beams": 4}.'
    )
    batch_size: int = option(16, "Batch size of generation.")
    seed: int = option(0, "Sampling seed.")
    output_dir: str | None = option(None, "Folder for the results. Unset: evaluations/<model name>.")
    overwrite: bool = option(False, "Replace the results of an earlier evaluation in output_dir.")
