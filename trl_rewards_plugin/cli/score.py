"""`trl-rewards score INPUT`: flags and YAML -> `score_file`. Leaves out: the job (`scoring/score_job.py`)."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_rewards_plugin.cli.flags import Parser
from trl_rewards_plugin.errors import InputError


def main(argv: Sequence[str]) -> int:
    """Scores as the flags say; returns the exit code. The summary goes to standard error."""
    from trl_rewards_plugin.cli.train import _quiet
    from trl_rewards_plugin.scoring.score_job import score_file

    settings = build_settings(argv)
    _quiet()
    try:
        summary = score_file(settings)
    except BrokenPipeError:
        # Who reads our output has had enough (`| head`). Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if summary is not None:
        print(_summary_line(summary, settings.output), file=sys.stderr)
    return 0


def build_settings(argv: Sequence[str]) -> Any:
    """The `ScoreSettings` that `argv` asks for; a flag is stronger than the YAML file of `--config`.

    Raises:
        InputError: an unknown flag or key, a value of the wrong type, or no input at all.
    """
    from trl_rewards_plugin.scoring.score_job import ScoreSettings

    given = vars(_parser().parse(argv))
    positional, config = given.pop("what"), given.pop("config", None)
    if positional is not None:
        if "input" in given:
            raise InputError("one input", f"{positional} and --input {given['input']}", "leave one of them out")
        given["input"] = positional
    values = {**({} if config is None else _read_settings(Path(config))), **given}
    settings = ScoreSettings(**values)
    if settings.input == "-" and sys.stdin is not None and sys.stdin.isatty():
        step = "give a file, or pipe texts in: trl-rewards score texts.jsonl --reward article"
        raise InputError("texts to score", "no input", step)
    return settings


def _read_settings(path: Path) -> dict[str, Any]:
    from trl_rewards_plugin.cli.train import read_config
    from trl_rewards_plugin.nearest import did_you_mean

    names = [field.name for field in _fields()]
    values = read_config(path)
    for key, value in values.items():
        if key not in names:
            step = f"{did_you_mean(key, names)}see trl-rewards score --help"
            raise InputError(f"settings of trl-rewards score in {path}", repr(key), step)
        if not isinstance(value, str):
            raise InputError(f"a text for {key} in {path}", repr(value), "see trl-rewards score --help")
    return values


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    from trl_rewards_plugin.scoring.score_job import ScoreSettings

    return dataclasses.fields(ScoreSettings)


def _parser() -> Parser:
    parser = Parser(
        prog="trl-rewards score",
        usage="trl-rewards score [INPUT] --reward NAME_OR_FILE.yaml [--output FILE] [options]",
        description="Scores texts by a reward: each row comes out as it came in, with its total and every component. "
        "With several GPUs: accelerate launch -m trl_rewards_plugin.cli.main score INPUT ...",
        # A flag that is not given leaves no trace, so that the YAML file's value or the default counts.
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("what", nargs="?", default=None, metavar="INPUT", help="short for --input")
    parser.add_argument("--config", metavar="FILE.yaml", help="file with any of the options below")
    for field in _fields():
        end = "" if field.default is None else f" Default: {field.default}"
        text = field.metadata["help"].replace("%", "%%") + end
        parser.add_argument(f"--{field.name.replace('_', '-')}", metavar=field.name.upper(), help=text)
    return parser


def _summary_line(summary: Any, output: str | None) -> str:
    means = ", ".join(f"{name} {'missing' if mean is None else f'{mean:.4f}'}" for name, mean in summary.means.items())
    before = f", {summary.earlier} of them before" if summary.earlier else ""
    place = "" if output is None else f" in {output}"
    return f"{summary.rows} texts{place}{before}, {summary.seconds:.1f} s. Means: {means}"
