"""`trl-rewards evaluate MODEL`: flags and YAML -> `evaluate_outputs`. Leaves out: the job."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_rewards_plugin.cli.flags import Parser
from trl_rewards_plugin.errors import InputError, suggestion


def main(argv: Sequence[str]) -> int:
    """Evaluates as the flags say; returns the exit code."""
    from trl_rewards_plugin.cli.train import _quiet
    from trl_rewards_plugin.recipes.evaluate.compare import evaluate_outputs

    settings = build_settings(argv)
    _quiet()
    evaluate_outputs(settings)
    return 0


def build_settings(argv: Sequence[str]) -> Any:
    """The `EvaluationSettings` that `argv` asks for; a flag is stronger than the YAML file of `--config`.

    Raises:
        InputError: an unknown flag or key, or a value of the wrong type.
    """
    from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationSettings

    given = vars(_parser().parse(argv))
    positional, config = given.pop("what"), given.pop("config", None)
    if positional is not None:
        if "model" in given:
            raise InputError("one model", f"{positional} and --model {given['model']}", "leave one of them out")
        given["model"] = positional
    from_file = {} if config is None else _read_settings(Path(config))
    return EvaluationSettings(**{**from_file, **given})


def _read_settings(path: Path) -> dict[str, Any]:
    from trl_rewards_plugin.cli.train import read_config

    fields = _fields()
    values = read_config(path)
    for key, value in values.items():
        if key not in fields:
            step = suggestion(key, fields, "see trl-rewards evaluate --help")
            raise InputError(f"settings of trl-rewards evaluate in {path}", repr(key), step)
        if not isinstance(value, _kind(fields[key])):
            step = "see trl-rewards evaluate --help"
            raise InputError(f"{_kind(fields[key]).__name__} for {key} in {path}", repr(value), step)
    return values


def _fields() -> dict[str, dataclasses.Field[Any]]:
    from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationSettings

    return {field.name: field for field in dataclasses.fields(EvaluationSettings)}


def _kind(field: dataclasses.Field[Any]) -> type:
    """What a value of this field is: bool, int, str, list or dict."""
    text = str(field.type)
    kinds = {"bool": bool, "int": int, "str": str, "Sequence": list, "Mapping": dict}
    return next(kind for name, kind in kinds.items() if text.startswith(name))


def _parser() -> Parser:
    parser = Parser(
        prog="trl-rewards evaluate",
        usage="trl-rewards evaluate [MODEL_OR_FILE] [--compare OTHER] [--metrics NAME ...] [options]",
        description="Measures a model's outputs, or a file of outputs, by any metrics, and writes a table, JSON and a "
        "picture. With a second side it also gives the paired gain with its 95 % interval.",
        # A flag that is not given leaves no trace, so that the YAML file's value or the default counts.
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("what", nargs="?", default=None, metavar="MODEL_OR_FILE", help="short for --model")
    parser.add_argument("--config", metavar="FILE.yaml", help="file with any of the options below")
    for name, field in _fields().items():
        flag, text, kind = f"--{name.replace('_', '-')}", field.metadata["help"].replace("%", "%%"), _kind(field)
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=text)
        elif kind is list:
            names: Any = field.default
            parser.add_argument(flag, nargs="+", metavar="NAME", help=f"{text} Default: {' '.join(names)}.")
        elif kind is dict:
            parser.add_argument(flag, type=_json, metavar="JSON", help=text)
        else:
            end = "" if field.default is None else f" Default: {field.default}."
            parser.add_argument(flag, type=kind, metavar=name.upper(), help=text + end)
    return parser


def _json(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"a JSON object in braces is wanted, not {text}")
    return value
