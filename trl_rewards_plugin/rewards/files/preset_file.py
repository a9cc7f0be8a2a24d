"""Reward files: the YAML form of a `MultiClassifierReward`.

```yaml
aggregation: weighted_sum          # or weighted_mean, mean_minus_std, minimum, geometric_mean
rewards:
- model: textattack/roberta-base-CoLA
  label: LABEL_1
  name: acceptability
  weight: 1.0
  normalization: zscore            # or {mean: 1.0, scale: 2.0}
  clip: [-3.0, 3.0]
- function: length                 # or repetition, similarity, package.module.name
  min_length: 20
  max_length: 60
  weight: 0.5
  weight_schedule: {0.0: 0.0, 0.5: 1.0}
  only_if: {acceptability: 0.0}    # counts only where that reward's own score reaches the threshold; else floor, or 0
- function: length                 # without a window: the number of words
  name: words
  constraints: {max: 25}           # a target for the mean score, min, max or both, in place of a weight
- combination: judges.yaml         # a file of several judges as one part, for example aggregation: mean_minus_std
```

An entry names what scores, by one of five keys, and has the arguments of it beside it:

    model: a text classifier (Hub id or folder), asset: a bundled one    arguments of `ClassifierReward`
    function: length, repetition, similarity or remote                   arguments of that reward
    function: package.module.name, a reward function or class of yours   a name; the arguments of the class
    metric: what `evaluate.load` takes                                   arguments of `MetricReward`
    combination: another reward file                                     a name

A file may name functions and metrics, which are code: trust it like a script. Models, tokenizers, metrics and files
in it are looked for beside the file first. A preset (../../preset_table.py) is such a content under a name.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from trl_rewards_plugin import assets
from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS, check_preset
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.combining.combination import Combination
from trl_rewards_plugin.rewards.combining.combination_settings import FORMS
from trl_rewards_plugin.rewards.files.dotted_paths import READY_MADE, imported
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.rewards.metric_reward import MetricReward
from trl_rewards_plugin.rewards.names import clean_name, total_name
from trl_rewards_plugin.yaml_text import read_yaml

SOURCES = ("model", "asset", "function", "metric", "combination")
FILE_KEYS = ("name", "aggregation", "disagreement_coef", "rewards")
SETTINGS = ("weight", *FORMS)  # keys that every entry may have beside its own

_EXAMPLE = "for example: rewards: [{model: textattack/roberta-base-CoLA, label: LABEL_1, weight: 1.0}]"


def preset_arguments(preset: str | os.PathLike[str], *, allow_code: bool = True) -> dict[str, Any]:
    """The arguments of `MultiClassifierReward` for a preset's name or a YAML file; of models only configs are read.

    Functions of yours are imported last, when all else in the file has been checked; with `allow_code=False` a file
    that names functions, metrics, servers or `trust_remote_code` is refused: nothing is imported, no text is sent.
    """
    content = _content(preset)
    entries = [dict(entry) for entry in content["rewards"]]
    for entry in entries:
        if "combination" in entry and not allow_code:
            preset_arguments(entry["combination"], allow_code=False)
        foreign = [key for key in ("metric", "trust_remote_code") if entry.get(key)]
        foreign += ["function"] if _imports_code(entry) or entry.get("function") == "remote" else []
        if foreign and not allow_code:
            local = ", ".join(name for name in READY_MADE if name != "remote")
            step = f"use models, assets and {local}, or trust the file with allow_code=True"
            found = f"{foreign[0]}: {entry[foreign[0]]}"
            raise InputError(f"rewards of {preset} that run no code of their own", found, step)
    settings = [{key: entry.pop(key) for key in SETTINGS if key in entry} for entry in entries]
    weights = [one.get("weight", 0.0 if "constraints" in one else 1.0) for one in settings]
    aggregation = content.get("aggregation", "weighted_sum")
    how = {"disagreement_coef": content.get("disagreement_coef")}

    def by_name(names: Sequence[str]) -> dict[str, dict[str, Any]]:
        rows = list(zip(names, settings, strict=True))
        return {key: {name: one[key] for name, one in rows if key in one} for key in SETTINGS if key != "weight"}

    # Once before the models are looked up, under names that the reader of the file can find.
    places = [f"rewards[{place}]" for place in range(len(entries))]
    # Gates name rewards, whose names are known only later.
    own = {key: value for key, value in by_name(places).items() if key not in ("only_if", "floor")}
    Combination.checked(places, weights, aggregation, **own, **how)
    for place, entry in zip(places, entries, strict=True):
        if _imports_code(entry):
            _check_arguments(entry, f"{preset}, {place}")
    rewards = []
    for entry in entries:
        arguments = {key: value for key, value in entry.items() if key not in ("asset", "function")}
        if "asset" in entry:
            arguments["model"] = str(assets.asset_path(entry["asset"]))
        rewards.append(_maker(entry)(**arguments))
    names = [one.name for one in rewards]
    name = content["name"] if "name" in content else total_name(clean_name(Path(preset).stem), names)
    return {"rewards": rewards, "weights": weights, "name": name, "aggregation": aggregation} | by_name(names) | how


def _content(preset: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a preset or of a reward file, its keys checked and what is null left out."""
    check_preset(preset)
    path = Path(preset)
    if path.suffix.lower() not in ENDINGS:
        return {"name": str(path), "rewards": PRESETS[str(path)]}
    form = f"{path.name} to hold 'rewards:', a list of mappings, each with one of {', '.join(SOURCES)}"
    content = read_yaml(path, form, _EXAMPLE)
    if not isinstance(content, dict) or not isinstance(content.get("rewards"), list) or not content["rewards"]:
        keys = content if isinstance(content, dict) and "rewards" not in content else ()
        near = "".join(did_you_mean(key, FILE_KEYS) for key in keys if key not in FILE_KEYS)
        raise InputError(form, f"{str(content)[:200]!r}", near + _EXAMPLE)
    _check_keys(content, FILE_KEYS, path.name)
    entries = [_checked_entry(entry, path, place) for place, entry in enumerate(content["rewards"])]
    return {**_without_none(content), "rewards": entries}


def write_preset_file(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as YAML; InputError for another ending, which would not be read back, or a missing folder."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError("a path that ends in .yaml or .yml", repr(str(path)), f"for example {path.name}.yaml")
    if not path.parent.is_dir():
        raise InputError("a path in a folder that exists", repr(str(path)), f"make the folder {path.parent}")
    text = yaml.safe_dump(_without_none(content), sort_keys=False, allow_unicode=True)
    write_text(path, f"# Read by MultiClassifierReward.from_preset.\n{text}")


def _checked_entry(given: Any, path: Path, place: int) -> dict[str, Any]:
    where = f"{path.name}, rewards[{place}]"
    if not isinstance(given, dict):
        raise InputError(f"{where} as a mapping", repr(given), _EXAMPLE)
    entry = _without_none(given)
    if sum(key in entry for key in SOURCES) != 1:
        found = ", ".join(map(str, entry)) or "nothing"
        near = "".join(did_you_mean(key, SOURCES) for key in entry if key not in (*SETTINGS, "name", "label"))
        raise InputError(f"one of {', '.join(SOURCES)} in {where}", found, f"{near}{_EXAMPLE}")
    for source in SOURCES:
        if source in entry and not isinstance(entry[source], str):
            raise InputError(f"{source} in {where} as a name", repr(entry[source]), _EXAMPLE)
    if not _imports_code(entry):
        _check_arguments(entry, where)
    for key in ("model", "tokenizer", "metric", "combination"):
        beside = path.parent / str(entry.get(key) or path.name)
        if key in entry and beside != path and beside.exists():
            entry[key] = str(beside)
    return entry


def _check_arguments(entry: Mapping[str, Any], where: str) -> None:
    """Checks the keys of an entry; a function in it is imported."""
    source = next(key for key in SOURCES if key in entry)
    parameters = inspect.signature(_maker(entry)).parameters
    _check_keys(entry, (source, *(name for name in parameters if name != "model"), *SETTINGS), where)
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [name for name in required if name not in entry and name != "model"]
    if missing:
        raise InputError(f"{', '.join(missing)} in {where}", f"only {', '.join(entry)}", _EXAMPLE)


def _without_none(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def _check_keys(found: Iterable[Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            step = f"{did_you_mean(key, known)}rename or remove it"
            raise InputError(f"only the keys {', '.join(dict.fromkeys(known))} in {where}", repr(key), step)


def _imports_code(entry: Mapping[str, Any]) -> bool:
    """Whether so much as the keys of this entry can only be known by importing a module of the user's."""
    return "function" in entry and entry["function"] not in READY_MADE


def _maker(entry: Mapping[str, Any]) -> Callable[..., Reward]:
    """What makes the reward of such an entry, whose other keys are its arguments."""
    if "function" in entry:
        found = imported(entry["function"])
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
    made: Reward = imported("trl_rewards_plugin.rewards.multi.MultiClassifierReward")(**arguments)
    return made


def exact_entry(part: Reward) -> dict[str, Any]:
    """`part.entry()` with what a repetition needs: the commit of a Hub model, a folder's absolute path.

    InputError for a reward that no file can name, or a Hub model whose commit is unknown.
    """
    entry = part.entry()
    if not any(key in entry for key in SOURCES):
        expected = f"reward {part.name!r} as something that a file can name"
        found = "a function that cannot be imported, a loaded module, or a combination"
        step = "define it at the top of a module, give metrics by name, and save a combination as its own file"
        raise InputError(expected, found, step)
    named = [key for key in ("model", "tokenizer", "metric") if os.path.isdir(entry.get(key, ""))]
    paths = {key: os.path.abspath(entry[key]) for key in named}
    if not isinstance(part, ClassifierReward):
        return entry | paths
    if not part.is_named:
        expected = f"model and tokenizer of reward {part.name!r} by name, for a file"
        raise InputError(expected, "a loaded model or tokenizer", "save it to a folder and pass the folder")
    if "model" not in paths:
        return entry | paths | {"revision": _commit(part.model_id, part.revision)}
    folder, name = os.path.split(paths["model"])
    if folder == str(assets.ROOT):  # bundled: the same everywhere, whatever its path
        del entry["model"], paths["model"]
        return {"name": entry.pop("name"), "asset": name, **entry, **paths}
    return entry | paths


def _commit(model_id: str, revision: str | None) -> str:
    """The commit that a branch or tag of a Hub model stood for when its config was read into the cache."""
    # The cache and not the config: newer transformers no longer keep the commit there.
    for name in ("config.json", "adapter_config.json"):
        path = try_to_load_from_cache(model_id, name, revision=revision)
        if isinstance(path, str):
            return os.path.basename(os.path.dirname(path))
    expected = f"{model_id} in the cache of the Hub, which records the commit that makes a run repeatable"
    raise InputError(expected, "no such entry", "pass revision= a commit, and rebuild the reward")
