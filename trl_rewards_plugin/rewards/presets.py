"""Named rewards.

Each is an attribute of this module as well, so that `trl grpo --reward_funcs
trl_rewards_plugin.rewards.presets.article` works. Importing this module builds none: each is built at first access,
and then reads its classifiers' configs from the Hub (`tiny` verifies the bundled assets' checksums instead).

The classifiers' labels are those of their model cards and configs.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.combining.combination import Combination
from trl_rewards_plugin.rewards.files.entries import reward_of
from trl_rewards_plugin.rewards.files.preset_file import SETTINGS, is_file_name, read_preset_file
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.rewards.names import clean_name, total_name

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
    # The same pair in small, bundled: for demonstration and tests only.
    "tiny": (
        {"asset": "acceptability-judge", "label": "acceptable", "weight": 1.0, "name": "acceptability"},
        {"asset": "sentiment-judge", "label": "neutral", "weight": 0.5, "name": "neutrality"},
    ),
    # Labels neutral and toxic; Jigsaw's comments, English.
    "non_toxic": ({"model": "s-nlp/roberta_toxicity_classifier", "label": "neutral", "name": "non_toxicity"},),
    # Labels polite, somewhat polite, neutral and impolite; customer service, English.
    "polite": ({"model": "Intel/polite-guard", "label": "polite", "name": "politeness"},),
    # Labels entailment, neutral and contradiction; English. The prompt is the premise and the completion the
    # hypothesis: does what was written follow from what was given?
    "faithful": (
        {
            "model": "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli",
            "label": "entailment",
            "pair": "prompt",
            "name": "faithfulness",
        },
    ),
    # The article's sentiment classifier, LABEL_2 = positive.
    "sentiment": ({"model": "cardiffnlp/twitter-roberta-base-sentiment", "label": "LABEL_2", "name": "positivity"},),
}


def preset_content(preset: str | os.PathLike[str]) -> dict[str, Any]:
    """What a reward file holds (see preset_file.py), for a preset's name or a YAML file.

    Raises:
        InputError: an unknown preset, or a file that is missing, is no YAML, or has another form.
    """
    if is_file_name(preset):
        return read_preset_file(Path(preset))
    name = os.fspath(preset)
    if name not in PRESETS:
        raise InputError(
            f"a preset ({', '.join(PRESETS)}) or a file that ends in .yaml or .yml",
            repr(name),
            f"{did_you_mean(name, PRESETS)}name one of these, or write the rewards into a .yaml file",
        )
    return {"name": name, "rewards": [dict(entry) for entry in PRESETS[name]]}


def preset_arguments(preset: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `MultiClassifierReward` for a preset's name or a YAML file; of models only configs are read.

    Raises:
        InputError: as `preset_content`, or an argument that does not fit.
    """
    content = preset_content(preset)
    entries = [dict(entry) for entry in content["rewards"]]
    settings = [{key: entry.pop(key) for key in SETTINGS if key in entry} for entry in entries]
    weights = [one.get("weight", 1.0) for one in settings]
    aggregation = content.get("aggregation", "weighted_sum")

    def by_name(names: Sequence[str]) -> dict[str, dict[str, Any]]:
        rows = list(zip(names, settings, strict=True))
        return {key: {name: one[key] for name, one in rows if key in one} for key in SETTINGS if key != "weight"}

    # Once before the models are looked up, under names that the reader of the file can find.
    places = [f"rewards[{place}]" for place in range(len(entries))]
    Combination.checked(places, weights, aggregation, **by_name(places))
    rewards = [reward_of(entry) for entry in entries]
    names = [one.name if isinstance(one, Reward) else CallableReward(one).name for one in rewards]
    name = content["name"] if "name" in content else total_name(clean_name(Path(preset).stem), names)
    return {"rewards": rewards, "weights": weights, "name": name, "aggregation": aggregation} | by_name(names)


def __getattr__(name: str) -> Any:
    if name not in PRESETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Here and not above: multi.py reads the presets of this module.
    from trl_rewards_plugin.rewards.multi import MultiClassifierReward

    reward = MultiClassifierReward.from_preset(name)
    globals()[name] = reward
    return reward
