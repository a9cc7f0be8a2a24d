"""Reward files: the YAML form of a `MultiClassifierReward`.

```yaml
aggregation: weighted_sum          # or weighted_mean, minimum, geometric_mean
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
```

A file may name functions and metrics, which are code: trust it like a script. Models, tokenizers and metrics in it are
looked for beside the file first. Here its outline is read, checked and written; what an entry may name is in
entries.py. A preset (preset_table.py) is such a content under a name.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.errors import InputError, did_you_mean, near_path
from trl_rewards_plugin.rewards.combining.combination import Combination
from trl_rewards_plugin.rewards.files.dotted_paths import READY_MADE
from trl_rewards_plugin.rewards.files.entries import SOURCES, entry_keys, foreign_code, imports_code, reward_of
from trl_rewards_plugin.rewards.files.preset_table import PRESETS
from trl_rewards_plugin.rewards.names import clean_name, total_name
from trl_rewards_plugin.yaml_text import load_yaml

FILE_KEYS = ("name", "aggregation", "rewards")
SETTINGS = ("weight", "normalization", "clip", "weight_schedule")
"""Keys that every entry may have beside its own."""
ENDINGS = (".yaml", ".yml")

_EXAMPLE = "for example: rewards: [{model: textattack/roberta-base-CoLA, label: LABEL_1, weight: 1.0}]"


def preset_arguments(preset: str | os.PathLike[str], *, allow_code: bool = True) -> dict[str, Any]:
    """The arguments of `MultiClassifierReward` for a preset's name or a YAML file; of models only configs are read.

    Functions of yours are imported last, when all else in the file has been checked; with `allow_code=False` a file
    that names functions, metrics or `trust_remote_code` is refused, and nothing is imported.

    Raises:
        InputError: an unknown preset, a file that is missing, is no YAML or has another form, or an argument that does
            not fit.
    """
    content = _preset_content(preset)
    entries = [dict(entry) for entry in content["rewards"]]
    foreign = next(filter(None, map(foreign_code, entries)), None)
    if foreign is not None and not allow_code:
        step = f"use models, assets and {', '.join(READY_MADE)}, or trust the file with allow_code=True"
        raise InputError(f"rewards of {preset} that run no code of their own", foreign, step)
    settings = [{key: entry.pop(key) for key in SETTINGS if key in entry} for entry in entries]
    weights = [one.get("weight", 1.0) for one in settings]
    aggregation = content.get("aggregation", "weighted_sum")

    def by_name(names: Sequence[str]) -> dict[str, dict[str, Any]]:
        rows = list(zip(names, settings, strict=True))
        return {key: {name: one[key] for name, one in rows if key in one} for key in SETTINGS if key != "weight"}

    # Once before the models are looked up, under names that the reader of the file can find.
    places = [f"rewards[{place}]" for place in range(len(entries))]
    Combination.checked(places, weights, aggregation, **by_name(places))
    for place, entry in zip(places, entries, strict=True):
        if imports_code(entry):
            _check_arguments(entry, f"{preset}, {place}")
    rewards = [reward_of(entry) for entry in entries]
    names = [one.name for one in rewards]
    name = content["name"] if "name" in content else total_name(clean_name(Path(preset).stem), names)
    return {"rewards": rewards, "weights": weights, "name": name, "aggregation": aggregation} | by_name(names)


def _preset_content(preset: str | os.PathLike[str]) -> dict[str, Any]:
    if Path(preset).suffix.lower() in ENDINGS:
        return _read_preset_file(Path(preset))
    name = os.fspath(preset)
    if name not in PRESETS:
        expected = f"a preset ({', '.join(PRESETS)}) or a file that ends in .yaml or .yml"
        step = f"{did_you_mean(name, PRESETS)}name one of these, or write the rewards into a .yaml file"
        raise InputError(expected, repr(name), step)
    return {"name": name, "rewards": [dict(entry) for entry in PRESETS[name]]}


def _read_preset_file(path: Path) -> dict[str, Any]:
    """The content of a reward file, its keys checked and what is null left out."""
    form = f"{path.name} to hold 'rewards:', a list of mappings, each with one of {', '.join(SOURCES)}"
    if not path.is_file():
        near = near_path(path)
        raise InputError("a reward file", f"no file {path}", f"did you mean '{near}'?" if near else "check the path")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(form, f"no YAML: {' '.join(str(error).split())}"[:500], _EXAMPLE) from error
    if not isinstance(content, dict) or not isinstance(content.get("rewards"), list) or not content["rewards"]:
        raise InputError(form, f"{str(content)[:200]!r}", _EXAMPLE)
    _check_keys(content, FILE_KEYS, path.name)
    entries = [_checked_entry(entry, path, place) for place, entry in enumerate(content["rewards"])]
    return {**_without_none(content), "rewards": entries}


def write_preset_file(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as YAML; InputError for another ending, which would not be read back, or a missing folder."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError("a path that ends in .yaml or .yml", repr(str(path)), f"for example {path.name}.yaml")
    if not path.parent.is_dir():
        raise InputError("a path in a folder that exists", repr(str(path)), f"make the folder {path.parent}")
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
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
    if not imports_code(entry):
        _check_arguments(entry, where)
    for key in ("model", "tokenizer", "metric"):
        beside = path.parent / str(entry.get(key) or path.name)
        if key in entry and beside != path and beside.exists():
            entry[key] = str(beside)
    return entry


def _check_arguments(entry: Mapping[str, Any], where: str) -> None:
    """Checks the keys of an entry; a function in it is imported."""
    _check_keys(entry, (*entry_keys(entry), *SETTINGS), where)
    missing = [key for key in entry_keys(entry, required=True) if key not in entry]
    if missing:
        raise InputError(f"{', '.join(missing)} in {where}", f"only {', '.join(entry)}", _EXAMPLE)


def _without_none(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def _check_keys(found: Iterable[Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            step = f"{did_you_mean(key, known)}rename or remove it"
            raise InputError(f"only the keys {', '.join(known)} in {where}", repr(key), step)
