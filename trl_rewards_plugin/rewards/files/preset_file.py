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

Here its outline is read, checked and written; what an entry may name is in entries.py.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.files.entries import SOURCES, check_function, entry_keys, required_keys

FILE_KEYS = ("name", "aggregation", "rewards")
SETTINGS = ("weight", "normalization", "clip", "weight_schedule")
"""Keys that every entry may have beside its own."""

_EXAMPLE = "for example: rewards: [{model: textattack/roberta-base-CoLA, label: LABEL_1, weight: 1.0}]"


def is_file_name(preset: Any) -> bool:
    """Whether `preset` is meant as a file and not as a preset's name."""
    return Path(preset).suffix.lower() in (".yaml", ".yml")


def read_preset_file(path: Path) -> dict[str, Any]:
    """The content of a reward file, its keys checked and what is null left out.

    Raises:
        InputError: no such file, no YAML, or another form.
    """
    form = f"{path.name} to hold 'rewards:', a list of mappings, each with one of {', '.join(SOURCES)}"
    if not path.is_file():
        raise InputError("a reward file", f"no file {path}", "check the path")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(form, f"no YAML: {error}", _EXAMPLE) from error
    if not isinstance(content, dict) or not isinstance(content.get("rewards"), list) or not content["rewards"]:
        raise InputError(form, f"{str(content)[:200]!r}", _EXAMPLE)
    _check_keys(content, FILE_KEYS, path.name)
    places = [f"{path.name}, rewards[{place}]" for place in range(len(content["rewards"]))]
    entries = [_checked_entry(entry, where) for entry, where in zip(content["rewards"], places, strict=True)]
    return {**_without_none(content), "rewards": entries}


def write_preset_file(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as YAML.

    Raises:
        InputError: `path` has another ending, so that it would not be read back, or its folder is not there.
    """
    if not is_file_name(path):
        raise InputError("a path that ends in .yaml or .yml", repr(str(path)), f"for example {path.name}.yaml")
    if not path.parent.is_dir():
        raise InputError("a path in a folder that exists", repr(str(path)), f"make the folder {path.parent}")
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    path.write_text(f"# Read by MultiClassifierReward.from_preset.\n{text}", encoding="utf-8")


def _checked_entry(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InputError(f"{where} as a mapping", repr(entry), _EXAMPLE)
    entry = _without_none(entry)
    if sum(key in entry for key in SOURCES) != 1:
        found = ", ".join(map(str, entry)) or "nothing"
        near = "".join(did_you_mean(key, SOURCES) for key in entry if key not in (*SETTINGS, "name", "label"))
        raise InputError(f"one of {', '.join(SOURCES)} in {where}", found, f"{near}{_EXAMPLE}")
    for source in SOURCES:
        if source in entry and not isinstance(entry[source], str):
            raise InputError(f"{source} in {where} as a name", repr(entry[source]), _EXAMPLE)
    if "function" in entry:
        check_function(entry["function"])  # a slip in its name before those in its arguments
    _check_keys(entry, (*entry_keys(entry), *SETTINGS), where)
    missing = [key for key in required_keys(entry) if key not in entry]
    if missing:
        raise InputError(f"{', '.join(missing)} in {where}", f"only {', '.join(entry)}", _EXAMPLE)
    return dict(entry)


def _without_none(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def _check_keys(found: Iterable[Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            raise InputError(
                f"only the keys {', '.join(known)} in {where}",
                repr(key),
                f"{did_you_mean(key, known)}rename or remove it",
            )
