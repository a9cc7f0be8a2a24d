"""The settings of `trl-rewards score`, each with its default and its help."""

from dataclasses import dataclass

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.options import option
from trl_rewards_plugin.preset_table import PRESETS
from trl_rewards_plugin.rows import STDIN, Row, missing_option


@dataclass(frozen=True)
class ScoreSettings:
    """What `trl-rewards score` does; a field's help is its flag's help."""

    input: str = option(
        STDIN, "File of texts: .txt (one per line), .jsonl, .json, .csv, .tsv or .parquet; - is standard input."
    )
    reward: str | None = option(
        None, "Reward: name of a preset, or a YAML file, to be trusted like a script. Required."
    )
    output: str | None = option(
        None,
        "File to write: .jsonl, .csv or .parquet. One that exists is resumed. Unset: JSONL to standard output.",
    )
    text_column: str = option("text", "Column of the texts to score.")
    prompt_column: str | None = option(None, "Column of the prompts, for rewards that read them. Unset: no prompts.")
    missing: str = missing_option()
    input_format: str | None = option(
        None, "lines, jsonl, csv, tsv or parquet. Unset: by the input's extension; standard input is read as lines."
    )
    device: str | None = option(
        None, "Where the classifiers run, for example cpu or cuda:1. Unset: this process's own."
    )


def given_reward(settings: ScoreSettings) -> str:
    """The name or file of the reward; refused if there is none."""
    if settings.reward is None:
        step = "for example --reward article"
        raise InputError(f"a reward: {', '.join(PRESETS)}, or a .yaml file of your own", "none", step)
    return settings.reward


def check_columns(settings: ScoreSettings, row: Row, number: int) -> None:
    """Refuses the row of this `number` if it lacks a column that is read; after the first, if `missing` says so."""
    for column, flag in ((settings.text_column, "--text-column"), (settings.prompt_column, "--prompt-column")):
        if column is not None and column not in row and (number == 1 or settings.missing == "error"):
            step = f"{did_you_mean(column, row)}give {flag} one of these"
            raise InputError(f"the column {column!r}", f"{', '.join(row)} in row {number}", step)
