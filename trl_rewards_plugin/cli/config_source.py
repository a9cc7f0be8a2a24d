"""The settings of `Seq2SeqPPOConfig` as its source declares them: no torch, which both its classes import.

Leaves out: rules that compare several settings, which the config itself holds.
"""

import ast
import importlib.util
import inspect
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from trl_rewards_plugin.cli.flags import BOOLEANS
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo import config_rules

_CLASSES = ("TrainingArguments", "Seq2SeqPPOConfig")


class Declared(NamedTuple):
    """A setting: its annotation, or the text of one that has no rule; its default; the names that it may take."""

    annotation: Any
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def kinds(self) -> set[str]:
        """The names in its type: {"list", "int"} of `list[int] | None`."""
        return _words(self._text)

    @property
    def _text(self) -> str:
        kind = config_rules.without_rules(self.annotation)
        return kind if isinstance(kind, str) else inspect.formatannotation(kind)

    def read(self, name: str, given: Any) -> Any:
        """`given`, as a flag or a YAML file says it, as the value that it means; refused if it cannot be one."""
        kinds = self.kinds - {"list"}
        if given is None or ("str" not in kinds and str(given).lower() == "none"):
            return None
        if "list" in self.kinds and isinstance(given, list) and len(kinds) == 1:
            one = Declared(" ".join(kinds))
            value: Any = [one.read(name, item) for item in given]
            if None in value:
                raise InputError(f"{name} as a list of values", repr(given), f"correct {name}")
        elif "list" in self.kinds and not _words(re.sub(r"list\[.*?\]", "", self._text)):
            raise InputError(f"{name} as a list", repr(given), f"correct {name}")
        elif isinstance(given, list | dict) and kinds <= {"bool", "int", "float", "str"}:
            raise InputError(f"{name} as a single value", repr(given), f"correct {name}")
        elif "dict" in kinds and str(given).startswith("{"):
            value = given if isinstance(given, dict) else _json(name, given)
        elif kinds == {"bool"} and str(given).lower() not in BOOLEANS:
            raise InputError(f"{name} as true or false", repr(given), f"correct {name}")
        elif kinds == {"bool"} or ("bool" in kinds and str(given).lower() in ("true", "false")):
            value = BOOLEANS[str(given).lower()]
        elif kinds and kinds <= {"int", "float"}:
            value = _number(name, given, float if "float" in kinds else int)
        else:
            value = str(given) if kinds == {"str"} else given
        config_rules.check_field(name, value, self.annotation, self.default, self.choices)
        return value


def _words(annotation: str) -> set[str]:
    return set(re.findall(r"\w+", annotation)) - {"None", "Optional", "Union"}


def _number(name: str, given: Any, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(str(given))
    except ValueError as error:
        expected = f"{name} as {'a whole number, such as 4' if kind is int else 'a number, such as 1e-5'}"
        raise InputError(expected, repr(given), f"correct {name}; see trl-rewards train --help") from error


def _json(name: str, given: str) -> Any:
    try:
        return json.loads(given)
    except ValueError as error:
        step = f'{error}; for example {{"top_k": 0}}, in single quotes for the shell'
        raise InputError(f"{name} as JSON", given, step) from error


def declared_settings() -> dict[str, Declared]:
    """Field -> what its line declares, of `Seq2SeqPPOConfig` and what it inherits."""
    spec = importlib.util.find_spec("transformers")
    found: dict[str, Declared] = {}
    for path in (
        Path(str(spec and spec.origin)).parent / "training_args.py",
        Path(__file__).parents[1] / "ppo" / "config.py",
    ):
        tree = _parsed(path)
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in _CLASSES]
        for line in (line for node in classes for line in node.body if isinstance(line, ast.AnnAssign)):
            if isinstance(line.target, ast.Name) and not line.target.id.startswith("_"):
                found[line.target.id] = _declared(line, tree)
    return found


def _declared(line: ast.AnnAssign, tree: ast.Module) -> Declared:
    text = ast.unparse(line.annotation)
    annotation = vars(config_rules).get(text, text)
    if not isinstance(line.value, ast.Call) or not line.value.args:
        return Declared(annotation)
    default = _literal(line.value.args[0])
    choices = [word.value for word in line.value.keywords if word.arg == "choices"]
    return Declared(annotation, default, _names(choices[0], tree) if choices else ())


def _names(node: ast.expr, tree: ast.Module) -> tuple[str, ...]:
    """The names that a list says, or `list(TABLE)` of a table in this module or the one that it is imported from."""
    if not isinstance(node, ast.Call):
        return tuple(_literal(node))
    table = ast.unparse(node.args[0])
    for line in tree.body:
        if isinstance(line, ast.ImportFrom) and table in [alias.name for alias in line.names]:
            module = Path(__file__).parents[2].joinpath(*str(line.module).split(".")).with_suffix(".py")
            return _names(node, _parsed(module))
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == table:
            return tuple(ast.literal_eval(key) for key in _keys(line.value))
    raise LookupError(table)


def _keys(node: Any) -> Any:
    return node.keys if isinstance(node, ast.Dict) else node.elts


def _literal(node: ast.expr | None) -> Any:
    return ast.literal_eval(node) if isinstance(node, ast.Constant | ast.List | ast.UnaryOp) else None


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
