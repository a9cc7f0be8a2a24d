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
- function: length                 # or repetition, similarity, package.module.name, file.py:name
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
    function: package.module.name or file.py:name, one of yours          a name; the arguments of the class
    metric: what `evaluate.load` takes                                   arguments of `MetricReward`
    combination: another reward file                                     a name

A file may name functions and metrics, which are code: trust it like a script. Models, tokenizers, metrics and files
in it are looked for beside the file first. A preset (../../preset_table.py) is such a content under a name. What needs
no torch is checked in file_content.py.
"""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from trl_rewards_plugin import assets
from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.preset_table import ENDINGS
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.files.dotted_paths import READY_MADE, imported
from trl_rewards_plugin.rewards.files.file_content import (
    SOURCES,
    check_arguments,
    check_gates,
    imports_code,
    own_arguments,
    preset_content,
    settings_by_name,
    without_none,
)
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.rewards.metric_reward import MetricReward
from trl_rewards_plugin.rewards.names import clean_name, total_name

_OURS = "# Read by MultiClassifierReward.from_preset."


def preset_arguments(preset: str | os.PathLike[str], *, allow_code: bool = True) -> dict[str, Any]:
    """The arguments of `MultiClassifierReward` for a preset's name or a YAML file; of models only configs are read.

    Functions of yours are imported last, when all else in the file has been checked; with `allow_code=False` a file
    that names functions, metrics, servers or `trust_remote_code` is refused: nothing is imported, no text is sent.
    """
    content = preset_content(preset)
    entries, folder = content["rewards"], Path(preset).parent
    for entry in entries:
        if "combination" in entry and not allow_code:
            preset_arguments(entry["combination"], allow_code=False)
        foreign = [key for key in ("metric", "trust_remote_code") if entry.get(key)]
        foreign += ["function"] if imports_code(entry) or entry.get("function") == "remote" else []
        if foreign and not allow_code:
            local = ", ".join(name for name in READY_MADE if name != "remote")
            step = f"use models, assets and {local}, or trust the file with allow_code=True"
            found = f"{foreign[0]}: {entry[foreign[0]]}"
            raise InputError(f"rewards of {preset} that run no code of their own", found, step)
    for place, entry in enumerate(entries):
        if imports_code(entry):
            parameters = inspect.signature(_maker(entry, folder)).parameters.values()
            required = {one.name: one.default is one.empty for one in parameters}
            check_arguments(entry, f"{preset}, rewards[{place}]", required)
    rewards = []
    for entry in entries:
        arguments = own_arguments(entry)
        if "asset" in entry:
            arguments["model"] = str(assets.asset_path(entry["asset"]))
        rewards.append(_maker(entry, folder)(**arguments))
    names = [one.name for one in rewards]
    check_gates(preset, entries, names)
    name = content["name"] if "name" in content else total_name(clean_name(Path(preset).stem), names)
    return {**content, "rewards": rewards, "name": name, **settings_by_name(entries, names)}


def write_preset_file(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as YAML; InputError for another ending, a missing folder, or over a file of someone else's."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError("a path that ends in .yaml or .yml", repr(str(path)), f"for example {path.name}.yaml")
    if not path.parent.is_dir():
        raise InputError("a path in a folder that exists", repr(str(path)), f"make the folder {path.parent}")
    if path.is_file() and not path.read_bytes().startswith(_OURS.encode()):
        step = "give another path, or delete that file"
        raise InputError("a path that is free, or a file that save_preset wrote", f"another file, {path}", step)
    text = yaml.safe_dump(without_none(content), sort_keys=False, allow_unicode=True)
    write_text(path, f"{_OURS} save_preset replaces a file that begins like this.\n{text}")


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
