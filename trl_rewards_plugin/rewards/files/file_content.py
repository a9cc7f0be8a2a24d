"""Reward files: the YAML form of a `MultiClassifierReward`, checked as far as possible without torch and any model.

```yaml
aggregation: weighted_sum          # or weighted_mean, mean_minus_std, minimum, geometric_mean
rewards:
- model: textattack/roberta-base-CoLA
  label: LABEL_1
  name: acceptability
  weight: 1.0
  normalization: zscore            # or {mean: 1.0, scale: 2.0}
  clip: [-3.0, 3.0]
- function: length
  max_length: 60
  weight_schedule: {0.0: 0.0, 0.5: 1.0}  # factor on the weight: 0 to 1 over the first half of training
  only_if: {acceptability: 0.0}    # counts only where that reward's own score reaches the threshold; else floor, or 0
- {function: length, name: words, constraints: {max: 25}}  # a target for the mean score in place of a weight
- combination: judges.yaml         # a file of several judges as one part, for example aggregation: mean_minus_std
```

An entry names what scores, by one of five keys, and has the arguments of it beside it:

    model: a text classifier (Hub id or folder), asset: a bundled one    arguments of `ClassifierReward`
    function: length, repetition, similarity or remote                   arguments of that reward
    function: package.module.name or file.py:name, one of yours          a name; the arguments of the class
    metric: what `evaluate.load` takes                                   arguments of `MetricReward`
    combination: another reward file                                     a name

A file may name functions and metrics, which are code: trust it like a script. Models, tokenizers, metrics and files
in it are looked for beside the file first. A preset (../../preset_table.py) is such a content under a name.
"""

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import yaml

from trl_rewards_plugin import assets
from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.errors import InputError, did_you_mean, nearest
from trl_rewards_plugin.places import check_model_name, missing_file
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.combining.combination_settings import FORMS, by_name, check_gate, checked_settings
from trl_rewards_plugin.rewards.files.dotted_paths import READY_MADE, check_name, imported
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.rewards.inference import classifier_rules
from trl_rewards_plugin.rewards.metric_reward import MetricReward
from trl_rewards_plugin.rewards.names import check_name as check_reward_name
from trl_rewards_plugin.rewards.names import clean_name, total_name
from trl_rewards_plugin.yaml_text import read_yaml

SOURCES = ("model", "asset", "function", "metric", "combination")
FILE_KEYS = ("name", "aggregation", "disagreement_coef", "rewards")
SETTINGS = ("weight", *FORMS)
"""Keys that every entry may have beside its own."""

_DEFAULTS: Mapping[str, Any] = {"aggregation": "weighted_sum", "disagreement_coef": None}
_EXAMPLE = "for example: rewards: [{model: textattack/roberta-base-CoLA, label: LABEL_1, weight: 1.0}]"
_OURS = "# Read by MultiClassifierReward.from_preset."


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
    own, by_place = {key: content[key] for key in _DEFAULTS}, _settings_by_name(entries, places)
    for key in ("only_if", "floor"):  # their form; gates name rewards, whose names are known only later
        by_name(key, by_place.pop(key), places)
    checked_settings(places, **own, **by_place)
    names = reward_names(content)
    if len(set(names)) < len(names):
        raise InputError(f"different names in {path.name}", ", ".join(names), "give each reward another name:")
    if len(names) == len(entries):  # otherwise what gates name is known only later
        _check_gates(path, entries, names)
        checked_settings(names, **own, **_settings_by_name(entries, names))
    for entry in entries:
        if "combination" in entry:
            preset_content(entry["combination"], (path.resolve(), *within))
    return content


def reward_names(content: Mapping[str, Any]) -> list[str]:
    """The names of the rewards in such a content, as far as they are known."""
    return [name for entry in content["rewards"] if (name := _name_of(entry)) is not None]


def check_servers(presets: Iterable[str]) -> None:
    """Asks every server that reward files among `presets` name: see `RemoteReward.check_server`."""
    for preset in presets:
        for entry in preset_content(preset)["rewards"] if preset.lower().endswith(ENDINGS) else ():
            check_servers([entry["combination"]] if "combination" in entry else [])
            if entry.get("function") == "remote":
                imported("remote")(**_own_arguments(entry)).check_server()


def preset_arguments(preset: str | os.PathLike[str], *, allow_code: bool = True) -> dict[str, Any]:
    """The arguments of `MultiClassifierReward` for a preset's name or a YAML file; of models only configs are read.

    Functions of yours are imported last, when all else in the file has been checked; with `allow_code=False` a file
    that names functions, metrics, servers or `trust_remote_code` is refused: nothing is imported, no text is sent.
    """
    content = preset_content(preset)
    entries, folder = content["rewards"], Path(preset).parent
    for entry in entries if not allow_code else ():
        if "combination" in entry:
            preset_arguments(entry["combination"], allow_code=False)
        foreign = [key for key in ("metric", "trust_remote_code") if entry.get(key)]
        foreign += ["function"] if _imports_code(entry) or entry.get("function") == "remote" else []
        if foreign:
            local = ", ".join(name for name in READY_MADE if name != "remote")
            step = f"use models, assets and {local}, or trust the file with allow_code=True"
            found = f"{foreign[0]}: {entry[foreign[0]]}"
            raise InputError(f"rewards of {preset} that run no code of their own", found, step)
    makers = [_maker(entry, folder) for entry in entries]
    for place, (entry, maker) in enumerate(zip(entries, makers, strict=True)):
        if _imports_code(entry):
            _check_arguments(entry, f"{preset}, rewards[{place}]", maker)
    rewards = [maker(**_own_arguments(entry)) for entry, maker in zip(entries, makers, strict=True)]
    names = [one.name for one in rewards]
    _check_gates(preset, entries, names)
    name = content["name"] if "name" in content else total_name(clean_name(Path(preset).stem), names)
    return {**content, "rewards": rewards, "name": name, **_settings_by_name(entries, names)}


def without_none(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """`mapping` without what is null."""
    return {key: value for key, value in mapping.items() if value is not None}


def write_preset_file(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as YAML; InputError for another ending, a missing folder, or over a file of someone else's."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError("a path that ends in .yaml or .yml", repr(str(path)), f"for example {path.name}.yaml")
    if not path.parent.is_dir():
        raise InputError("a path in a folder that exists", repr(str(path)), f"make the folder {path.parent}")
    if path.is_file() and not path.read_bytes().startswith(_OURS.encode()):
        step = "give another path, or delete that file"
        raise InputError("a path that is free, or a file that save_preset wrote", f"another file, {path}", step)
    if any(row.get("combination") == os.path.abspath(path) for row in content["rewards"]):
        raise InputError("another path than that of a part", repr(str(path)), "give the whole a file of its own")
    text = yaml.safe_dump(without_none(content), sort_keys=False, allow_unicode=True)
    write_text(path, f"{_OURS} save_preset replaces a file that begins like this.\n{text}")


def exact_entry(part: Reward) -> dict[str, Any]:
    """`part.entry()` with a Hub model's commit and folders' absolute paths; InputError for what no file can name."""
    is_combination = hasattr(part, "save_preset")
    file = getattr(part, "preset", None) if is_combination else None
    entry = part.entry() | ({} if file is None else {"combination": file})
    if not any(key in entry for key in SOURCES):
        kind = "function" if isinstance(part, CallableReward) else "class"
        found = f"a {kind} that cannot be imported"
        step = f"define the {kind} at the top of a module, not of the script that runs, and import it from there"
        if is_combination:
            found = "a combination that no file holds as it is now"
            step = f"save it first: {part.name}.save_preset('{part.name}.yaml')"
        elif isinstance(part, MetricReward):
            found, step = "a loaded metric", "give it by name: MetricReward('rouge', 'rougeL', references=...)"
        elif kind == "class" and not is_dataclass(part):
            found = f"{type(part).__name__}, which is no dataclass"
            step = "derive it from TextReward, as a dataclass whose fields are its settings"
        raise InputError(f"reward {part.name!r} as something that a file can name", found, step)
    named = [key for key in ("model", "tokenizer", "metric") if os.path.isdir(entry.get(key, ""))]
    entry |= {key: os.path.abspath(entry[key]) for key in named}
    if not isinstance(part, ClassifierReward):
        return entry
    if not part.is_named:
        expected = f"model and tokenizer of reward {part.name!r} by name, for a file"
        raise InputError(expected, "a loaded model or tokenizer", "save it to a folder and pass the folder")
    if "model" not in named:
        return entry | {"revision": _commit(part.model_id, part.revision)}
    folder, name = os.path.split(entry["model"])
    if folder == str(assets.ROOT):  # bundled: the same everywhere, whatever its path
        del entry["model"]
        return {"name": entry.pop("name"), "asset": name, **entry}
    return entry


def _commit(model_id: str, revision: str | None) -> str:
    """The commit that a branch or tag of a Hub model stood for when its config was read into the cache."""
    from huggingface_hub import try_to_load_from_cache

    # The cache and not the config: newer transformers no longer keep the commit there.
    for name in ("config.json", "adapter_config.json"):
        path = try_to_load_from_cache(model_id, name, revision=revision)
        if isinstance(path, str):
            return os.path.basename(os.path.dirname(path))
    expected = f"{model_id} in the cache of the Hub, which records the commit that makes a run repeatable"
    raise InputError(expected, "no such entry", "pass revision= a commit, and rebuild the reward")


def _read_reward_file(path: Path) -> dict[str, Any]:
    """The content of a reward file, its keys checked and what is null left out."""
    form = f"{path.name} to hold 'rewards:', a list of mappings, each with one of {', '.join(SOURCES)}"
    content = read_yaml(path, form, _EXAMPLE)
    if not isinstance(content, dict) or not isinstance(content.get("rewards"), list) or not content["rewards"]:
        keys = content if isinstance(content, dict) and "rewards" not in content else ()
        near = "".join(did_you_mean(key, FILE_KEYS) for key in keys if key not in FILE_KEYS)
        found = "an empty file" if content is None else f"{str(content)[:200]!r}"
        raise InputError(form, found, near + _EXAMPLE)
    _check_keys(content, FILE_KEYS, path.name)
    entries = [_checked_entry(entry, path, place) for place, entry in enumerate(content["rewards"])]
    return {**without_none(content), "rewards": entries}


def _checked_entry(given: Any, path: Path, place: int) -> dict[str, Any]:
    where = f"{path.name}, rewards[{place}]"
    if not isinstance(given, dict):
        raise InputError(f"{where} as a mapping", repr(given), _EXAMPLE)
    entry = without_none(given)
    sources = [key for key in SOURCES if key in entry]
    if len(sources) != 1:
        unknown = [key for key in entry if key not in (*SETTINGS, *SOURCES, "name", "label")]
        step = "".join(did_you_mean(key, SOURCES) for key in unknown) + _EXAMPLE
        found = ", ".join(map(str, entry)) or "nothing"
        raise InputError(f"exactly one of {', '.join(SOURCES)} in {where}", found, step)
    if not isinstance(entry[sources[0]], str):
        raise InputError(f"{sources[0]} in {where} as a name", repr(entry[sources[0]]), _EXAMPLE)
    if "function" in entry:
        check_name(entry["function"], path.parent)
    if not _imports_code(entry):
        _check_arguments(entry, where, _maker(entry, path.parent))
    for key in ("model", "tokenizer", "metric", "combination"):
        beside = path.parent / str(entry.get(key) or path.name)
        if key in entry and beside != path and beside.exists():
            entry[key] = str(beside)
    try:
        _check_values(entry)
    except InputError as error:
        raise InputError(f"{where}: {error.expected}", error.found, error.next_step) from error
    return entry


def _check_arguments(entry: Mapping[str, Any], where: str, maker: Callable[..., Reward]) -> None:
    """Checks the keys of an entry by the parameters of what makes its reward."""
    source = next(key for key in SOURCES if key in entry)
    parameters = [one for one in inspect.signature(maker).parameters.values() if one.name != "model"]
    _check_keys(entry, (source, *(one.name for one in parameters), *SETTINGS), where)
    missing = [one.name for one in parameters if one.default is one.empty and one.name not in entry]
    if missing:
        step = f"add {' and '.join(f'{name}:' for name in missing)} beside {source}:"
        raise InputError(f"{', '.join(missing)} in {where}", f"only {', '.join(entry)}", step)


def _check_keys(found: Iterable[Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            setting = nearest(key, SETTINGS) if known == FILE_KEYS else None
            step = f"write {setting}: into the entry of its reward" if setting else "rename or remove it"
            step = did_you_mean(key, known) + step
            if key == "token" and "url" in known:
                step = "leave it out: the token is read from TRL_REWARDS_TOKEN"
            raise InputError(f"only the keys {', '.join(dict.fromkeys(known))} in {where}", repr(key), step)


def _check_values(entry: Mapping[str, Any]) -> None:
    """Checks the arguments of a ready-made reward or a classifier, by its config where that is on the disk."""
    arguments = _own_arguments(entry)
    if "name" in entry:
        check_reward_name(entry["name"])
    if entry.get("function") in READY_MADE:
        imported(entry["function"])(**arguments)
    elif "model" in arguments:
        classifier_rules.check_arguments(**arguments)
        if not assets.is_bundled(arguments["model"]):
            check_model_name(arguments["model"], classifier_rules.EXPECTED)
        classifier_rules.check_saved(folder := Path(assets.resolve(arguments["model"])))
        config = _config_in(folder)
        if config is not None:
            given = {key: arguments[key] for key in ("label", "score_type", "max_length") if key in arguments}
            classifier_rules.label_index(config, arguments["model"], **given)


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


def _check_gates(preset: str | os.PathLike[str], entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Refuses a gate of unknown rewards, or of itself, by the place of its entry; `names` are those of the rewards."""
    for place, (entry, name) in enumerate(zip(entries, names, strict=True)):
        check_gate([*map(str, entry.get("only_if", ()))], f"only_if of {preset}, rewards[{place}]", name, names)


def _settings_by_name(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The arguments of `MultiClassifierReward` that entries set for their own reward: "weights", and dicts by name."""
    rows = list(zip(names, entries, strict=True))
    weights = [entry.get("weight", 0.0 if "constraints" in entry else 1.0) for entry in entries]
    return {"weights": weights, **{key: {name: entry[key] for name, entry in rows if key in entry} for key in FORMS}}


def _name_of(entry: Mapping[str, Any]) -> str | None:
    """The name that an entry's reward gets; None where only the code, the config or the file it names could tell."""
    arguments = _own_arguments(entry)
    if "name" in entry:
        return str(entry["name"])
    if entry.get("function") in READY_MADE:
        return str(imported(entry["function"])(**arguments).name)
    if "metric" in entry:
        return clean_name(str(entry["key"]))
    if "model" not in arguments or not isinstance(entry["label"], str):
        return None
    return classifier_rules.default_name(arguments["model"].removeprefix(assets.BUNDLED), entry["label"])


def _imports_code(entry: Mapping[str, Any]) -> bool:
    """Whether so much as the keys of this entry can only be known by importing a module of the user's."""
    return "function" in entry and entry["function"] not in READY_MADE


def _own_arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of what an entry names."""
    asset = {"model": f"{assets.BUNDLED}{entry['asset']}"} if "asset" in entry else {}
    return asset | {key: value for key, value in entry.items() if key not in ("asset", "function", *SETTINGS)}


def _maker(entry: Mapping[str, Any], folder: Path) -> Callable[..., Reward]:
    """What makes the reward of such an entry in a file of `folder`, whose other keys are its arguments."""
    if "function" in entry:
        found = imported(entry["function"], folder)
        is_reward = isinstance(found, type) and issubclass(found, Reward)
        return found if is_reward else functools.partial(CallableReward, found)
    if "combination" in entry:
        return _nested
    return MetricReward if "metric" in entry else ClassifierReward


def _nested(combination: str, name: str | None = None) -> Reward:
    """The combination of another reward file, as one part."""
    arguments = preset_arguments(combination)
    arguments["name"] = name or arguments["name"]
    # By its path: multi.py imports this module.
    made = imported("trl_rewards_plugin.rewards.multi.MultiClassifierReward")(**arguments)
    made.came_from(combination)
    return cast(Reward, made)
