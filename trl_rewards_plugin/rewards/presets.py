"""Named rewards, and reward files in YAML.

`presets.article` and `presets.tiny` are `MultiClassifierReward`s, so `trl grpo --reward_funcs
trl_rewards_plugin.rewards.presets.article` works. Importing this module builds neither: each is built at first access
(`article` then reads two configs from the Hub; `tiny` verifies the bundled assets' checksums).
"""

import os
from pathlib import Path
from typing import Any

import yaml

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.names import clean_name, did_you_mean

PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    # The article's pair: https://huggingface.co/textattack/roberta-base-CoLA, LABEL_1 = acceptable, and
    # https://huggingface.co/cardiffnlp/twitter-roberta-base-sentiment, LABEL_1 = neutral.
    "article": (
        {"model": "textattack/roberta-base-CoLA", "label": "LABEL_1", "weight": 1.0, "name": "acceptability"},
        {
            "model": "cardiffnlp/twitter-roberta-base-sentiment",
            "label": "LABEL_1",
            "weight": 0.5,
            "name": "neutrality",
        },
    ),
    # The same pair in small, bundled: for demonstration and tests only. `asset` stands for the folder.
    "tiny": (
        {"asset": "acceptability-judge", "label": "acceptable", "weight": 1.0, "name": "acceptability"},
        {"asset": "sentiment-judge", "label": "neutral", "weight": 0.5, "name": "neutrality"},
    ),
}

FILE_KEYS = (
    "model",
    "label",
    "weight",
    "name",
    "score_type",
    "revision",
    "pair",
    "tokenizer",
    "batch_size",
    "max_length",
    "device",
    "dtype",
)


def preset_entries(preset: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Arguments of each `ClassifierReward`, and its "weight" if given, for a preset's name or a YAML file.

    Raises:
        InputError: an unknown preset, or a file that is missing, is no YAML, or has another form.
    """
    if _is_file_name(preset):
        return _file_entries(Path(preset))
    if preset not in PRESETS:
        names = ", ".join(PRESETS)
        raise InputError(
            f"a preset ({names}) or a file that ends in .yaml or .yml",
            repr(os.fspath(preset)),
            f"{did_you_mean(preset, PRESETS)}name one of these, or write the rewards into a .yaml file",
        )
    entries = [dict(entry) for entry in PRESETS[os.fspath(preset)]]
    for entry in entries:
        if "asset" in entry:
            entry["model"] = asset_path(entry.pop("asset"))
    return entries


def preset_name(preset: str | os.PathLike[str]) -> str:
    """The reward's name: the preset's, or the file's without its ending."""
    return clean_name(Path(preset).stem) if _is_file_name(preset) else os.fspath(preset)


def _is_file_name(preset: str | os.PathLike[str]) -> bool:
    return Path(preset).suffix.lower() in (".yaml", ".yml")


def _file_entries(path: Path) -> list[dict[str, Any]]:
    form = f"{path.name} to hold 'rewards:', a list of mappings, each with 'model' and 'label'"
    example = "for example: rewards: [{model: textattack/roberta-base-CoLA, label: LABEL_1, weight: 1.0}]"
    if not path.is_file():
        raise InputError("a reward file", f"no file {path}", "check the path")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(form, f"no YAML: {error}", example) from error
    if not isinstance(content, dict) or not isinstance(content.get("rewards"), list) or not content["rewards"]:
        raise InputError(form, f"{str(content)[:200]!r}", example)
    _check_keys(content, ("rewards",), path.name)
    for place, entry in enumerate(content["rewards"]):
        where = f"{path.name}, rewards[{place}]"
        if not isinstance(entry, dict):
            raise InputError(form, f"{where} is {entry!r}", example)
        _check_keys(entry, FILE_KEYS, where)
        if entry.get("model") is None or entry.get("label") is None:
            raise InputError(form, f"{where} has only {', '.join(entry)}", example)
    return content["rewards"]


def _check_keys(found: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            raise InputError(
                f"only the keys {', '.join(known)} in {where}",
                repr(key),
                f"{did_you_mean(key, known)}rename or remove it",
            )


def __getattr__(name: str) -> Any:
    if name not in PRESETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Here and not above: multi.py reads the entries of this module.
    from trl_rewards_plugin.rewards.multi import MultiClassifierReward

    reward = MultiClassifierReward.from_preset(name)
    globals()[name] = reward
    return reward
