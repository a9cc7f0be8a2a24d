"""One reward <-> one entry of a reward file: a mapping of plain values.

An entry names what scores, by one of four keys, and has the arguments of it beside it:

    model: a text classifier (Hub id or folder), asset: a bundled one    arguments of `ClassifierReward`
    function: length, repetition or similarity                           arguments of the reward in ready_made.py
    function: package.module.name, a reward function of yours            nothing but a name
    metric: what `evaluate.load` takes                                   arguments of `MetricReward`

Leaves out: weights and other settings of the combination, and the file around the entries (preset_file.py).
"""

import dataclasses
import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub import try_to_load_from_cache

from trl_rewards_plugin import assets
from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.rewards.metric_reward import MetricReward
from trl_rewards_plugin.rewards.similarity import SimilarityReward
from trl_rewards_plugin.rewards.text_rewards import LengthReward, RepetitionReward

READY_MADE: dict[str, type] = {
    "length": LengthReward,
    "repetition": RepetitionReward,
    "similarity": SimilarityReward,
}
SOURCES = ("model", "asset", "function", "metric")


def entry_keys(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that an entry of this kind may have."""
    if "function" in entry:
        made = READY_MADE.get(entry["function"])
        return ("function", "name") if made is None else ("function", *_arguments(made))
    if "metric" in entry:
        return _arguments(MetricReward)
    source = "asset" if "asset" in entry else "model"
    return (source, *_arguments(ClassifierReward)[1:])


def required_keys(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that an entry of this kind must have, its source first."""
    source = next((key for key in SOURCES if key in entry), "model")
    if source in ("model", "asset"):
        return (source, "label")
    made = READY_MADE.get(entry[source], object) if source == "function" else MetricReward
    return tuple(dict.fromkeys((source, *_arguments(made, required=True))))


def check_function(path: str) -> None:
    """Refuses what is neither ready-made nor can be imported.

    Raises:
        InputError: it is neither.
    """
    if path not in READY_MADE:
        _imported(path)


def reward_of(entry: Mapping[str, Any]) -> Callable[..., Any]:
    """The reward that an entry with sound keys describes; only configs are read.

    Raises:
        InputError: of the reward, for its arguments; or no such function.
    """
    arguments = dict(entry)
    if "function" in arguments:
        path = arguments.pop("function")
        if path in READY_MADE:
            reward: Callable[..., Any] = READY_MADE[path](**arguments)
            return reward
        return CallableReward(_imported(path), **arguments)
    if "metric" in arguments:
        return MetricReward(arguments.pop("metric"), **arguments)
    if "asset" in arguments:
        arguments["model"] = str(assets.asset_path(arguments.pop("asset")))
    return ClassifierReward(arguments.pop("model"), **arguments)


def entry_of(part: Reward) -> dict[str, Any]:
    """The entry of a reward: its name, and what is neither None nor left at its default; `reward_of` reads it back.

    What no file can name (a lambda, a loaded module, a combination) has nothing but a name.
    """
    if isinstance(part, ClassifierReward):
        return _classifier_entry(part)
    source: dict[str, Any] = {}
    if isinstance(part, CallableReward):
        source = _function_entry(part.function)
    return {"name": part.name, **source}


def exact_entry(part: Reward) -> dict[str, Any]:
    """`entry_of` with what a repetition needs: the commit of a Hub model, a folder's absolute path.

    Raises:
        InputError: a reward that no file can name, or a Hub model whose commit is unknown.
    """
    entry = entry_of(part)
    if not any(key in entry for key in SOURCES):
        raise InputError(
            f"reward {part.name!r} as something that a file can name",
            "a function that cannot be imported, a loaded module, or a combination",
            "define the function at the top of a module, give metrics by name, and list rewards singly",
        )
    return _exact_classifier(part, entry) if isinstance(part, ClassifierReward) else entry


def _classifier_entry(part: ClassifierReward) -> dict[str, Any]:
    classifier = part._classifier
    tokenizer = classifier._tokenizer_source
    further = {
        "tokenizer": tokenizer if isinstance(tokenizer, str) else None,
        "max_length": part.max_length,
        "dtype": None if classifier.dtype is None else str(classifier.dtype).removeprefix("torch."),
    }
    entry = {**part.describe()[0], **further}
    return {key: value for key, value in entry.items() if key != "weight" and value is not None}


def _exact_classifier(part: ClassifierReward, entry: dict[str, Any]) -> dict[str, Any]:
    classifier = part._classifier
    if not isinstance(classifier.source, str) or not isinstance(classifier._tokenizer_source, str | None):
        raise InputError(
            f"model and tokenizer of reward {part.name!r} by name, for a file",
            "a loaded model or tokenizer",
            "save it to a folder and pass the folder",
        )
    exact = entry | {key: _exact_path(entry[key]) for key in ("model", "tokenizer") if key in entry}
    if os.path.isdir(exact["model"]):
        folder, name = os.path.split(exact["model"])
        if folder == str(assets.ROOT):  # bundled: the same everywhere, whatever its path
            del exact["model"]
            return {"name": exact.pop("name"), "asset": name, **exact}
        return exact
    return exact | {"revision": _commit(part.model_id, part.revision)}


def _commit(model_id: str, revision: str | None) -> str:
    """The commit that a branch or tag of a Hub model stood for when its config was read into the cache."""
    # The cache and not the config: newer transformers no longer keep the commit there.
    path = try_to_load_from_cache(model_id, "config.json", revision=revision)
    if not isinstance(path, str):
        raise InputError(
            f"{model_id} in the cache of the Hub, where the commit stands with which a run can be repeated",
            "no such entry",
            "pass revision= a commit, and build the reward anew",
        )
    return os.path.basename(os.path.dirname(path))


def _exact_path(name: str) -> str:
    return os.path.abspath(name) if os.path.isdir(name) else name


def _function_entry(function: Callable[..., Any]) -> dict[str, Any]:
    for path, made in READY_MADE.items():
        if isinstance(function, made):
            return {"function": path, **_changed(function)}
    if isinstance(function, MetricReward):
        return function.settings()
    path = f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', None)}"
    try:
        importable = not path.startswith("__main__.") and pkgutil.resolve_name(path) is function
    except (ImportError, AttributeError, ValueError):
        importable = False
    return {"function": path} if importable else {}


def _changed(made: Any) -> dict[str, Any]:
    """Fields of a ready-made reward that differ from their defaults, without the name."""
    fields = [field for field in dataclasses.fields(made) if field.name != "name"]
    values = {field.name: getattr(made, field.name) for field in fields}
    return {field.name: values[field.name] for field in fields if values[field.name] != field.default}


def _imported(path: Any) -> Callable[..., Any]:
    try:
        function: Callable[..., Any] = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(
            f"function as one of {', '.join(READY_MADE)}, or as package.module.name",
            f"{path!r}: {error}",
            f"{did_you_mean(path, READY_MADE)}check the name; a module of yours must be installed or on PYTHONPATH",
        ) from error
    return function


def _arguments(made: type, required: bool = False) -> tuple[str, ...]:
    parameters = inspect.signature(made).parameters.values()
    return tuple(p.name for p in parameters if not required or p.default is p.empty)
