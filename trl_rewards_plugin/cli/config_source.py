"""The settings of `Seq2SeqPPOConfig` as its source declares them: no torch, which both its classes import."""

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
from trl_rewards_plugin.ppo.maths import methods

_CLASSES = ("TrainingArguments", "Seq2SeqPPOConfig")
_TRANSFORMERS = Path(str(getattr(importlib.util.find_spec("transformers"), "origin", ""))).parent


class Declared(NamedTuple):
    """A setting: its annotation, or the text of one that has no rule; its default; the names that it may take."""

    annotation: Any
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """Its type as text, without its rule."""
        kind = config_rules.without_rules(self.annotation)
        return kind if isinstance(kind, str) else inspect.formatannotation(kind)

    @property
    def kinds(self) -> set[str]:
        """The names in its type: {"list", "int"} of `list[int] | None`."""
        return set(re.findall(r"\w+", self.type)) - {"None", "Optional", "Union"}

    def read(self, name: str, given: Any) -> Any:
        """`given`, as a flag or a YAML file says it, as the value that it means; refused if it cannot be one."""
        kinds = self.kinds - {"list"}
        is_list = "list" in self.kinds and not Declared(re.sub(r"list\[.*?\]", "", self.type)).kinds
        may_be_none = re.search(r"\b(None|Optional)\b", self.type) if is_list else "str" not in kinds
        if may_be_none and str(given).lower() == "none":
            given = None
        if is_list and isinstance(given, str | int | float):
            given = [given]  # one value, as after a flag
        if given is None:
            value: Any = None
        elif "list" in self.kinds and isinstance(given, list) and len(kinds) == 1:
            one = Declared(" ".join(kinds))
            value = [one.read(name, item) for item in given]
            if None in value:
                raise InputError(f"{name} as a list of values", repr(given), f"correct {name}")
        elif is_list:
            raise InputError(f"{name} as a list", repr(given), f"correct {name}")
        elif isinstance(given, list | dict) and kinds <= {"bool", "int", "float", "str"}:
            raise InputError(f"{name} as a single value", repr(given), f"correct {name}")
        elif given is False and "no" in self.choices:
            raise InputError(f"{name} as a text", "no, which YAML reads as false", f'write {name}: "no"')
        elif "dict" in kinds and str(given).startswith(("{", "[")):
            value = given if isinstance(given, dict) else _json(name, given)
        elif kinds == {"bool"} and str(given).lower() not in BOOLEANS:
            raise InputError(f"{name} as true or false", repr(given), f"correct {name}")
        elif kinds == {"bool"} or ("bool" in kinds and str(given).lower() in ("true", "false")):
            value = BOOLEANS[str(given).lower()]
        elif kinds and kinds <= {"int", "float"}:
            value = _number(name, given, float if "float" in kinds else int, self.default)
        else:
            value = str(given) if kinds == {"str"} else given
        config_rules.check_field(name, value, self.annotation, self.default, self.choices)
        return value


def _number(name: str, given: Any, kind: type[int] | type[float], default: Any) -> int | float:
    try:
        return kind(str(given))
    except ValueError as error:
        expected = config_rules.as_number(name, kind, default)
        raise InputError(expected, repr(given), f"correct {name}; see trl-rewards train --help") from error


def _json(name: str, given: str) -> dict[str, Any]:
    try:
        value = json.loads(given)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object in braces")
    except ValueError as error:
        step = f'{error}; for example {{"top_k": 0}}, in single quotes for the shell'
        raise InputError(f"{name} as JSON", given, step) from error
    return value


def declared_settings() -> dict[str, Declared]:
    """Field -> what its line declares, of `Seq2SeqPPOConfig` and what it inherits."""
    files = [_TRANSFORMERS / name for name in ("trainer_utils.py", "training_args.py")]
    files.append(Path(__file__).parents[1] / "ppo" / "config.py")
    classes = [node for file in files for node in _parsed(file).body if isinstance(node, ast.ClassDef)]
    # Class of transformers that lists what a text may be -> these texts.
    listed = {
        node.name: tuple(_literal(line.value) for line in node.body if isinstance(line, ast.Assign))
        for node in classes
        if [ast.unparse(base) for base in node.bases] == ["ExplicitEnum"]
    }
    found: dict[str, Declared] = {}
    for line in (line for node in classes if node.name in _CLASSES for line in node.body):
        if isinstance(line, ast.AnnAssign) and not (name := ast.unparse(line.target)).startswith("_"):
            one = _declared(line)
            choices = [listed[kind] for kind in one.kinds & listed.keys() if "list" not in one.kinds]
            found[name] = one._replace(choices=choices[0]) if choices else one
    return found


def known_trackers() -> tuple[str, ...]:
    """The trackers that transformers has a callback for."""
    for line in _parsed(_TRANSFORMERS / "integrations" / "integration_utils.py").body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "INTEGRATION_TO_CALLBACK":
            return tuple(_literal(key) for key in getattr(line.value, "keys", ()))
    return ()


def _declared(line: ast.AnnAssign) -> Declared:
    text = ast.unparse(line.annotation)
    annotation = vars(config_rules).get(text.removeprefix("rules."), text)
    if not isinstance(line.value, ast.Call):
        return Declared(annotation)
    words = {word.arg: word.value for word in line.value.keywords}
    default = line.value.args[0] if line.value.args else words.get("default")  # `option` or `field`
    choices: Any = words.get("choices")
    if isinstance(choices, ast.Call):  # list(TABLE)
        names = (vars(methods) | vars(config_rules))[ast.unparse(choices.args[0])]
    else:
        names = _literal(choices) or ()
    return Declared(annotation, _literal(default), tuple(names))


def _literal(node: ast.expr | None) -> Any:
    return ast.literal_eval(node) if isinstance(node, ast.Constant | ast.List | ast.UnaryOp) else None


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
