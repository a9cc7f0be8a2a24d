"""One entry of a reward file, a mapping of plain values -> one reward; what `Reward.entry` gives, exactly.

An entry names what scores, by one of four keys, and has the arguments of it beside it:

    model: a text classifier (Hub id or folder), asset: a bundled one    arguments of `ClassifierReward`
    function: length, repetition or similarity                           arguments of that reward
    function: package.module.name, a reward function or class of yours   a name; the arguments of the class
    metric: what `evaluate.load` takes                                   arguments of `MetricReward`

Leaves out: weights and other settings of the combination, and the file around the entries (preset_file.py).
"""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub import try_to_load_from_cache

from trl_rewards_plugin import assets
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.files.dotted_paths import READY_MADE, imported
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.rewards.metric_reward import MetricReward

SOURCES = ("model", "asset", "function", "metric")


def entry_keys(entry: Mapping[str, Any], *, required: bool = False) -> tuple[str, ...]:
    """The keys that an entry of this kind may have, its source first, or those that it must have.

    A function is imported for it; InputError where that fails.
    """
    source = next(key for key in SOURCES if key in entry)
    parameters = inspect.signature(_maker(entry)).parameters.values()
    names = [p.name for p in parameters if p.name != "model" and not (required and p.default is not p.empty)]
    return tuple(dict.fromkeys((source, *names)))


def foreign_code(entry: Mapping[str, Any]) -> str | None:
    """What in an entry runs code that is not this package's; None where nothing does."""
    keys = [key for key in ("metric", "trust_remote_code") if entry.get(key)]
    keys += ["function"] if imports_code(entry) else []
    return f"{keys[0]}: {entry[keys[0]]}" if keys else None


def imports_code(entry: Mapping[str, Any]) -> bool:
    """Whether so much as the keys of this entry can only be known by importing a module of the user's."""
    return "function" in entry and entry["function"] not in READY_MADE


def reward_of(entry: Mapping[str, Any]) -> Reward:
    """The reward that an entry with sound keys describes; only configs are read. InputErrors are the reward's."""
    arguments = {key: value for key, value in entry.items() if key not in ("asset", "function")}
    if "asset" in entry:
        arguments["model"] = str(assets.asset_path(entry["asset"]))
    return _maker(entry)(**arguments)


def _maker(entry: Mapping[str, Any]) -> Callable[..., Reward]:
    """What makes the reward of such an entry, whose other keys are its arguments."""
    if "function" in entry:
        found = imported(entry["function"])
        is_reward = isinstance(found, type) and issubclass(found, Reward)
        return found if is_reward else functools.partial(CallableReward, found)
    return MetricReward if "metric" in entry else ClassifierReward


def exact_entry(part: Reward) -> dict[str, Any]:
    """`part.entry()` with what a repetition needs: the commit of a Hub model, a folder's absolute path.

    Raises:
        InputError: a reward that no file can name, or a Hub model whose commit is unknown.
    """
    entry = part.entry()
    if not any(key in entry for key in SOURCES):
        raise InputError(
            f"reward {part.name!r} as something that a file can name",
            "a function that cannot be imported, a loaded module, or a combination",
            "define the function at the top of a module, give metrics by name, and list rewards singly",
        )
    paths = {key: os.path.abspath(entry[key]) for key in ("model", "tokenizer", "metric") if _is_folder(entry, key)}
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


def _is_folder(entry: Mapping[str, Any], key: str) -> bool:
    return key in entry and os.path.isdir(entry[key])


def _commit(model_id: str, revision: str | None) -> str:
    """The commit that a branch or tag of a Hub model stood for when its config was read into the cache."""
    # The cache and not the config: newer transformers no longer keep the commit there.
    path = try_to_load_from_cache(model_id, "config.json", revision=revision)
    if not isinstance(path, str):
        path = try_to_load_from_cache(model_id, "adapter_config.json", revision=revision)
    if not isinstance(path, str):
        expected = f"{model_id} in the cache of the Hub, where the commit stands with which a run can be repeated"
        raise InputError(expected, "no such entry", "pass revision= a commit, and build the reward anew")
    return os.path.basename(os.path.dirname(path))
