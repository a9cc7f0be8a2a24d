"""The parser of every subcommand: flags from a dataclass's fields, and a YAML file of defaults behind `--config`.

A flag works in both spellings (`--dry_run`, `--dry-run`); one that is unknown is refused with the nearest known one.
"""

import argparse
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from trl_rewards_plugin.errors import InputError, nearest
from trl_rewards_plugin.places import missing_file
from trl_rewards_plugin.runs.public_names import located
from trl_rewards_plugin.yaml_text import read_yaml

Settings = TypeVar("Settings")
# What a type is called, and an example; that of a mapping stands in the setting's help.
_IN_WORDS: Mapping[Any, tuple[str, str]] = {
    int: ("a whole number", "10"), float: ("a number", "0.5"), bool: ("true or false", "true"),
    str: ("a string", "text"), list: ("a list", "[a, b]"), dict: ("a JSON object", "{}"),
}  # fmt: skip
BOOLEANS = dict.fromkeys(("true", "yes", "t", "y", "1"), True) | dict.fromkeys(("false", "no", "f", "n", "0"), False)


class _Gathering(argparse._StoreAction):
    """Adds the values of a flag that takes several to those that were given before."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        given = getattr(namespace, self.dest, self.default)
        gathers = self.nargs in ("+", "*") and given is not self.default
        setattr(namespace, self.dest, [*given, *values] if gathers else values)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `InputError`s; `usage` begins with the command, as "trl-rewards card"."""

    types: Mapping[str, Any] = {}  # field -> its annotation, of the fields that became flags
    # Unknown flag or key -> the next step; "{}" in it becomes "--" for a flag and "" for a key.
    hints: Mapping[str, str] = {}

    def __init__(self, usage: str, **options: Any):
        super().__init__(prog=" ".join(usage.split()[:2]), usage=usage, allow_abbrev=False, **options)
        self.register("action", None, _Gathering)

    def error(self, message: str) -> NoReturn:
        """Not two screens of usage."""
        raise InputError("valid values for the flags", message, f"see {self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The values in `argv`, or their defaults; an unknown flag or a value that does not fit is refused."""
        values, unknown = self.parse_known_intermixed_args(self._normalise(argv))
        if unknown:
            # Without their values, one of which may be a token.
            flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("--")]
            steps = {word: self._next_step(word, self._option_string_actions, "--") for word in flags or unknown[:1]}
            step = " / ".join(f"{word}: {step}" if len(steps) > 1 else step for word, step in steps.items())
            raise InputError(f"options of {self.prog}", " ".join(flags or unknown), step)
        return values

    def load_config(self, argv: Sequence[str], ignored: Sequence[str] = ()) -> dict[str, Any]:
        """Makes the settings in the file of `--config` the flags' defaults; returns what the file holds."""
        path = self.parse(without_help(argv)).config
        if path is None:
            return {}
        content = read_config(path)
        self.check_keys(content, path, ignored)
        for key in content.keys() & self.types.keys():
            self.set_defaults(**{key: self._value(key, content[key], path)})
        return content

    def check_keys(self, content: Mapping[str, Any], path: str, ignored: Sequence[str] = ()) -> None:
        """Refuses keys of the file at `path` that are neither settings nor `ignored`."""
        for key in content:
            if key not in (*self.types, *ignored):
                step = self._next_step(str(key), self.types, "")
                if key == "rewards":
                    step = f"a reward file goes to --{'reward' if 'reward' in self.types else 'metrics'}: {path}"
                raise InputError(f"settings of {self.prog} in {path}", repr(key), step)

    def _normalise(self, argv: Sequence[str]) -> list[str]:
        known, arguments = self._option_string_actions, []
        for argument, following in zip(argv, [*argv[1:], ""], strict=False):
            flag, equals, value = argument.partition("=")
            if flag.startswith("--") and flag not in known and flag.replace("_", "-") in known:
                flag = flag.replace("_", "-")
            action = known.get(flag)
            is_switch = action is not None and action.nargs == "?" and action.const is True
            if is_switch and self._get_positional_actions() and not equals and following.lower() not in BOOLEANS:
                # argparse would read the positional argument in `--overwrite runs/x` as the value of the switch.
                equals, value = "=", "true"
            arguments.append(flag + equals + value)
        return arguments

    def _next_step(self, word: str, known: Iterable[str], prefix: str) -> str:
        if not word.startswith("-") and "--compare" in known:
            return f"to compare with a second model or file: --compare {word}"
        hint = self.hints.get(word.removeprefix("--").replace("-", "_"))
        near = nearest(word, known)
        if hint is not None:
            return hint.replace("{}", prefix)
        return f"see {self.prog} --help" if near is None else f"did you mean {near if prefix else repr(near)}?"

    def _value(self, key: str, value: Any, path: str) -> Any:
        """`value` as the field's type wants it: text and numbers mean what they mean after a flag."""
        kinds = _kinds(self.types[key])
        if value is None or type(value) in kinds:
            return value
        if {list, NoneType} <= kinds and str(value).lower() == "none":
            return None
        convert: Any = next(action.type for action in self._actions if action.dest == key)
        try:
            if isinstance(value, list | dict) or dict in kinds:
                raise TypeError
            return [convert(str(value))] if list in kinds else convert(str(value))
        except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
            raise self._refusal(key, f"{key} in {path}", repr(value), f"{key}: {{}}") from error

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            flag, key = f"--{action.dest}", action.dest
            if key not in self.types:
                raise
            quoted = f"{flag} '{{}}'" if dict in _kinds(self.types[key]) else f"{flag} {{}}"
            raise self._refusal(key, flag, error.message, quoted) from error

    def _refusal(self, key: str, what: str, found: str, example: str) -> InputError:
        """The error for a value of another type than the field's; "{}" in `example` becomes one that it takes."""
        known = [in_words for kind, in_words in _IN_WORDS.items() if kind in _kinds(self.types[key])]
        if not known:
            return InputError(f"another value of {what}", found, f"see {self.prog} --help")
        text = next(str(action.help) for action in self._actions if action.dest == key)
        written = re.search(r"\{.*?\}+", text)
        step = f"for example {example.format(written[0] if written else known[0][1])}; see {self.prog} --help"
        return InputError(f"{what} as {' or '.join(words for words, _ in known)}", found, step)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Shows the defaults that say something."""
        says_nothing = action.default is None or action.default is False
        return action.help if says_nothing else super()._get_help_string(action)


def without_help(argv: Sequence[str]) -> list[str]:
    """The arguments that can be parsed without printing help."""
    return [argument for argument in argv if argument not in ("-h", "--help")]


def switch_hints(names: Iterable[str]) -> dict[str, str]:
    """`Parser.hints` for "--no_" before a switch that has no such flag, because it is off anyway."""
    return {f"no_{name}": f"leave it out, or set {{}}{name} to false" for name in names}


def settings_parser(*kinds: type, usage: str, description: str, hints: Mapping[str, str] | None = None) -> Parser:
    """A parser with `--config` and, by `TrlParser`, a flag for every field of the dataclasses `kinds`."""
    from trl import TrlParser

    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", metavar="FILE.yaml", help="file with any of the options below; flags override it")
    fields = TrlParser(kinds, add_help=False)
    parser = Parser(usage, description=description, parents=[config, fields], formatter_class=_Help)
    parser.types = {key: hint for kind in kinds for key, hint in get_type_hints(kind).items()}
    parser.hints = switch_hints(key for key, hint in parser.types.items() if bool in _kinds(hint)) | dict(hints or {})
    for action in parser._actions:
        if action.nargs == "+":
            action.__class__ = _Gathering  # made by TrlParser, which knows only argparse's
        if dict in _kinds(parser.types.get(action.dest)) and str not in _kinds(parser.types[action.dest]):
            action.type = _json_object
    return parser


def parse_settings(
    kind: type[Settings], argv: Sequence[str], *, positional: str, metavar: str, **texts: Any
) -> Settings:
    """A dataclass as `argv` says, else the file of `--config`, else its defaults; `positional` needs no flag."""
    parser = settings_parser(kind, **texts)
    parser.add_argument("positional", nargs="?", metavar=metavar, help=f"short for --{positional}")
    parser.load_config(argv)
    values = vars(parser.parse(argv))
    given = values.pop("positional")
    if given is not None and values[positional] != parser.get_default(positional):
        found = f"{given} and --{positional} {values[positional]}"
        raise InputError(f"one {positional}", found, "leave one of them out")
    del values["config"]
    return kind(**values | ({} if given is None else {positional: given}))


def read_config(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, with files found beside it first; `env`, as in TRL, is set in the environment."""
    path = Path(path)
    if not path.is_file():
        raise missing_file("a YAML file after --config", f"no file {str(path)!r}", path)
    values = read_yaml(path, f"valid YAML in {path}", "fix the file")
    if not isinstance(values, dict):
        step = "write one setting per line, such as learning_rate: 1.0e-5"
        found = "an empty file" if values is None else type(values).__name__
        raise InputError(f"a YAML mapping in {path}", found, step)
    environment = values.pop("env", None) or {}
    if not isinstance(environment, dict):
        found, step = f"env: {environment!r}", "write NAME: value on a line of its own below env:"
        raise InputError(f"env in {path} as a mapping", found, step)
    os.environ.update({str(key): str(value) for key, value in environment.items()})
    return located(values, path.parent)


def _kinds(annotation: Any) -> set[Any]:
    """`list[int] | None` -> list and NoneType."""
    members = get_args(annotation) if isinstance(annotation, UnionType) or get_origin(annotation) is Union else ()
    return {get_origin(member) or member for member in members or (annotation,)}


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"invalid JSON: {error}") from error
    if isinstance(value, dict):
        return value
    raise argparse.ArgumentTypeError(f"expected a JSON object in braces, got {text}")
