"""The content of a reward file, checked as far as that needs no model and no torch: YAML, keys, settings.

Leaves out: making the rewards, and the arguments of functions of the user's, which have to be imported
(preset_file.py, which describes the format).
"""

import ast
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trl_rewards_plugin.assets import BUNDLED, is_bundled, resolve
from trl_rewards_plugin.errors import InputError, check_hub_name, did_you_mean, missing_file, nearest
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.rewards.combining.combination_settings import FORMS, by_name, check_gate, checked_settings
from trl_rewards_plugin.rewards.files.dotted_paths import READY_MADE, check_name, imported
from trl_rewards_plugin.rewards.inference import classifier_rules
from trl_rewards_plugin.rewards.names import check_name as check_reward_name
from trl_rewards_plugin.rewards.names import clean_name
from trl_rewards_plugin.yaml_text import read_yaml

SOURCES = ("model", "asset", "function", "metric", "combination")
FILE_KEYS = ("name", "aggregation", "disagreement_coef", "rewards")
SETTINGS = ("weight", *FORMS)
"""Keys that every entry may have beside its own."""

_CLASSIFIER = "trl_rewards_plugin.rewards.classifier.ClassifierReward"
_MADE_BY = {
    "model": _CLASSIFIER,
    "asset": _CLASSIFIER,
    "metric": "trl_rewards_plugin.rewards.metric_reward.MetricReward",
}
_DEFAULTS: Mapping[str, Any] = {"aggregation": "weighted_sum", "disagreement_coef": None}
_EXAMPLE = "for example: rewards: [{model: textattack/roberta-base-CoLA, label: LABEL_1, weight: 1.0}]"


def preset_content(preset: str | os.PathLike[str], within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a preset or a YAML file says, its combinations checked too; `within`: the files that it is part of."""
    path, name = Path(preset), os.fspath(preset)
    if path.suffix.lower() not in ENDINGS:
        if name in PRESETS:
            return {"name": name, **_DEFAULTS, "rewards": [dict(entry) for entry in PRESETS[name]]}
        expected = f"a preset ({', '.join(PRESETS)}) or a file that ends in .yaml or .yml"
        step = f"{did_you_mean(name, PRESETS)}name one of these, or write the rewards into a .yaml file"
        raise InputError(expected, repr(name), step)
    if not path.is_file():
        raise missing_file("a reward file", f"no file {path}", path)
    if path.resolve() in within:
        step = "name another file after combination:, or remove that part"
        raise InputError("a reward file that is no part of itself", " in ".join(map(str, (path, *within))), step)
    content = {**_DEFAULTS, **_read_reward_file(path)}
    entries = content["rewards"]
    places = [f"{path.name}, rewards[{place}]" for place in range(len(entries))]  # which its reader can find
    own, by_place = {key: content[key] for key in _DEFAULTS}, settings_by_name(entries, places)
    for key in ("only_if", "floor"):  # their form; gates name rewards, whose names are known only later
        by_name(key, by_place.pop(key), places)
    checked_settings(places, **own, **by_place)
    names = reward_names(content)
    if len(set(names)) < len(names):
        raise InputError(f"different names in {path.name}", ", ".join(names), "give each reward another name:")
    if len(names) == len(entries):  # otherwise what gates name is known only later
        check_gates(path, entries, names)
        checked_settings(names, **own, **settings_by_name(entries, names))
    for entry in entries:
        if "combination" in entry:
            preset_content(entry["combination"], (path.resolve(), *within))
    return content


def reward_names(content: Mapping[str, Any]) -> list[str]:
    """The names of the rewards in such a content, as far as they are known."""
    return [name for entry in content["rewards"] if (name := _name_of(entry)) is not None]


def check_gates(preset: str | os.PathLike[str], entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Refuses a gate of unknown rewards, or of itself, by the place of its entry; `names` are those of the rewards."""
    for place, (entry, name) in enumerate(zip(entries, names, strict=True)):
        check_gate([*map(str, entry.get("only_if", ()))], f"only_if of {preset}, rewards[{place}]", name, names)


def settings_by_name(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The arguments of `MultiClassifierReward` that entries set for their own reward: "weights", and dicts by name."""
    rows = list(zip(names, entries, strict=True))
    weights = [entry.get("weight", 0.0 if "constraints" in entry else 1.0) for entry in entries]
    by_name = {key: {name: entry[key] for name, entry in rows if key in entry} for key in FORMS}
    return {"weights": weights, **by_name}


def check_arguments(entry: Mapping[str, Any], where: str, parameters: Mapping[str, bool]) -> None:
    """Checks the keys of an entry; `parameters`: argument of what it names -> whether it is required."""
    source = next(key for key in SOURCES if key in entry)
    _check_keys(entry, (source, *(name for name in parameters if name != "model"), *SETTINGS), where)
    missing = [name for name, required in parameters.items() if required and name not in (*entry, "model")]
    if missing:
        step = f"add {' and '.join(f'{name}:' for name in missing)} beside {source}:"
        raise InputError(f"{', '.join(missing)} in {where}", f"only {', '.join(entry)}", step)


def parameters_in_source(path: str) -> dict[str, bool]:
    """Argument -> whether it is required, of a class of this package by its dotted path, which is not imported."""
    module, _, name = path.rpartition(".")
    file = Path(__file__).parents[2].joinpath(*module.split(".")[1:]).with_suffix(".py")
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    lines = next(node.body for node in nodes if isinstance(node, ast.ClassDef) and node.name == name)
    for line in lines:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            free = len(line.args.args) - len(line.args.defaults)
            positional = {one.arg: place < free for place, one in enumerate(line.args.args) if place}
            by_name = zip(line.args.kwonlyargs, line.args.kw_defaults, strict=True)
            return positional | {one.arg: default is None for one, default in by_name}
    fields = [line for line in lines if isinstance(line, ast.AnnAssign)]  # of a dataclass
    return {line.target.id: line.value is None for line in fields if isinstance(line.target, ast.Name)}


def imports_code(entry: Mapping[str, Any]) -> bool:
    """Whether so much as the keys of this entry can only be known by importing a module of the user's."""
    return "function" in entry and entry["function"] not in READY_MADE


def without_none(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """`mapping` without what is null."""
    return {key: value for key, value in mapping.items() if value is not None}


def _read_reward_file(path: Path) -> dict[str, Any]:
    """The content of a reward file, its keys checked and what is null left out."""
    form = f"{path.name} to hold 'rewards:', a list of mappings, each with one of {', '.join(SOURCES)}"
    content = read_yaml(path, form, _EXAMPLE)
    if not isinstance(content, dict) or not isinstance(content.get("rewards"), list) or not content["rewards"]:
        keys = content if isinstance(content, dict) and "rewards" not in content else ()
        near = "".join(did_you_mean(key, FILE_KEYS) for key in keys if key not in FILE_KEYS)
        raise InputError(form, f"{str(content)[:200]!r}", near + _EXAMPLE)
    _check_keys(content, FILE_KEYS, path.name)
    entries = [_checked_entry(entry, path, place) for place, entry in enumerate(content["rewards"])]
    return {**without_none(content), "rewards": entries}


def _checked_entry(given: Any, path: Path, place: int) -> dict[str, Any]:
    where = f"{path.name}, rewards[{place}]"
    if not isinstance(given, dict):
        raise InputError(f"{where} as a mapping", repr(given), _EXAMPLE)
    entry = without_none(given)
    if sum(key in entry for key in SOURCES) != 1:
        found = ", ".join(map(str, entry)) or "nothing"
        near = "".join(
            did_you_mean(key, SOURCES) for key in entry if key not in (*SETTINGS, *SOURCES, "name", "label")
        )
        raise InputError(f"exactly one of {', '.join(SOURCES)} in {where}", found, f"{near}{_EXAMPLE}")
    source = next(key for key in SOURCES if key in entry)
    if not isinstance(entry[source], str):
        raise InputError(f"{source} in {where} as a name", repr(entry[source]), _EXAMPLE)
    if source == "function":
        check_name(entry["function"], path.parent)
    if source == "combination":
        check_arguments(entry, where, {"combination": True, "name": False})
    elif not imports_code(entry):
        check_arguments(entry, where, parameters_in_source(_MADE_BY.get(source) or READY_MADE[entry["function"]]))
    for key in ("model", "tokenizer", "metric", "combination"):
        beside = path.parent / str(entry.get(key) or path.name)
        if key in entry and beside != path and beside.exists():
            entry[key] = str(beside)
    try:
        _check_values(entry)
    except InputError as error:
        raise InputError(f"{where}: {error.expected}", error.found, error.next_step) from error
    return entry


def own_arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of what an entry names."""
    return {key: value for key, value in entry.items() if key not in ("asset", "function", *SETTINGS)}


def _check_values(entry: Mapping[str, Any]) -> None:
    """Checks the arguments of a ready-made reward or a classifier, by its config where that is on the disk."""
    arguments = own_arguments(entry)
    if "name" in entry:
        check_reward_name(entry["name"])
    if entry.get("function") in READY_MADE:
        imported(entry["function"])(**arguments)
    elif "model" in entry or "asset" in entry:
        classifier_rules.check_arguments(**arguments)
        named = entry.get("model", f"{BUNDLED}{entry.get('asset')}")
        if not is_bundled(named):
            check_hub_name(named, classifier_rules.EXPECTED)
        config = _config_in(Path(resolve(named)))
        if config is not None:
            given = {key: arguments[key] for key in ("label", "score_type", "max_length") if key in arguments}
            classifier_rules.label_index(config, named, **given)


def _name_of(entry: Mapping[str, Any]) -> str | None:
    """The name that an entry's reward gets; None where only the code, the config or the file it names could tell."""
    if "name" in entry:
        return str(entry["name"])
    if entry.get("function") in READY_MADE:
        return str(imported(entry["function"])(**own_arguments(entry)).name)
    if "metric" in entry:
        return clean_name(str(entry["key"]))
    if imports_code(entry) or not isinstance(entry.get("label"), str):
        return None
    return classifier_rules.default_name(entry.get("model", entry.get("asset")).removeprefix(BUNDLED), entry["label"])


def _config_in(folder: Path) -> SimpleNamespace | None:
    """What a classifier's config.json says; None where there is none, or none that can be read so easily."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        id2label = {int(index): label for index, label in content["id2label"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    unlike = content.get("num_labels", len(id2label)) != len(id2label)  # transformers then makes up labels
    if unlike or not isinstance(content.get("model_type", ""), str) or (folder / "adapter_config.json").exists():
        return None
    return SimpleNamespace(**{"problem_type": None, "model_type": None, **content, "id2label": id2label})


def _check_keys(found: Iterable[Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            setting = nearest(key, SETTINGS) if known == FILE_KEYS else None
            step = f"write {setting}: into the entry of its reward" if setting else "rename or remove it"
            step = did_you_mean(key, known) + step
            raise InputError(f"only the keys {', '.join(dict.fromkeys(known))} in {where}", repr(key), step)
