"""ClassifierMetric: one label of a text classifier as an `evaluate` metric. The modules beside this file name it.

The scores are those of `ClassifierReward`, on another scale unless asked: a metric's default is the probability, a
reward's the logit; with one `score_type` a text gets the same number from both. Leaves out: what a
module says of itself (description, citation, examples), which is in its own script.
"""

import math
from collections.abc import Iterable
from typing import Any

import datasets
import evaluate

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward
from trl_rewards_plugin.rewards.names import clean_name
from trl_rewards_plugin.rewards.presets import PRESETS
from trl_rewards_plugin.rewards.texts import as_texts

PRESET_OF = {"default": "article", "tiny": "tiny"}
"""Config names that stand for a judge of the reward presets; any other name is a model's."""

THRESHOLDS = {"probability": 0.5, "logit": 0.0, "log_probability": math.log(0.5)}

_INPUTS_DESCRIPTION = """
Config names, the second argument of `evaluate.load`:
    default: {default}, from the Hub.
    tiny: the small judge inside trl_rewards_plugin; offline, for demonstration and tests only.
    any other: a text classifier's Hub id or folder, with label="..." (name or index of the label that is scored).

Args:
    predictions (list of str): texts. Of each, as many tokens are read as the judge has positions, at most 512; the
        rest is cut off.
    score_type (str): "probability" (default), "logit" (raw) or "log_probability" (nats).
    threshold (float): for `share_above`; by default 0.5 for probabilities, 0 for logits, log(0.5) for log
        probabilities.
    batch_size (int): texts in a forward pass; by default as many as fit into 16,384 tokens.
    device (str or torch.device): where to score from now on; by default where the judge is, which at first is this
        process's own accelerator, or the CPU.

Returns:
    {name} (float): mean score; None of no texts.
    scores (list of float): each text's score.
    share_above (float): share of the texts that score above the threshold; None of no texts.

Raises (all are ValueErrors):
    predictions: None where nothing was added before, a single string, or a list that holds anything but texts.
    An empty list is no error: the mean and the share are then None.
    score_type, threshold, batch_size: an unknown score type, a threshold that is no number, no positive whole number.
    evaluate.load: a model without label, or a label that the model does not have (the message lists its labels).

Examples:
{examples}"""


def inputs_description(name: str, default: str, examples: str) -> str:
    """What the module `name` says of its arguments, with its own default judge and examples."""
    return _INPUTS_DESCRIPTION.format(name=name, default=default, examples=examples)


class ClassifierMetric(evaluate.Metric):
    """Mean score of texts by one classifier, with each text's score and the share above a threshold.

    Args:
        config_name: "default" (None), "tiny", or a classifier's Hub id or folder, which needs `label`.
        label: Label whose score is the metric, by name or index; None: the named judge's own.
        **kwargs: As for `evaluate.Metric`.

    Attributes:
        component: The reward presets' name of the judgement; set by subclasses.
        about: Description, citation, inputs and the Hub id of the default judge; set by subclasses.
    """

    component: str
    about: tuple[str, str, str, str]

    def __init__(self, config_name: str | None = None, label: str | int | None = None, **kwargs: Any):
        self._judge_name = str(config_name or "default")
        self._label = label
        # evaluate makes a cache folder of the config name: the name of a model's folder would lead it into that one.
        super().__init__(config_name=clean_name(self._judge_name), **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        description, citation, inputs, judge = self.about
        return evaluate.MetricInfo(
            description=description,
            citation=citation,
            inputs_description=inputs,
            features=datasets.Features({"predictions": datasets.Value("string")}),
            reference_urls=[f"https://huggingface.co/{judge}"],
        )

    def _download_and_prepare(self, dl_manager: Any) -> None:
        """Loads the judge, once; processes that only collect texts read its config alone."""
        name, label = self._judge_name, self._label
        if name in PRESET_OF:
            entry = next(entry for entry in PRESETS[PRESET_OF[name]] if entry["name"] == self.component)
            name = str(asset_path(entry["asset"])) if "asset" in entry else entry["model"]
            label = entry["label"] if label is None else label
        if label is None:
            expected = f"label= beside a model of your own, or one of the config names {', '.join(PRESET_OF)}"
            step = f'for example evaluate.load(path, "{name}", label="LABEL_1")'
            raise InputError(expected, f"the model {name!r} alone", step)
        self._judge: dict[str, Any] = {"model": name, "label": label, "name": self.component}
        reward = ClassifierReward(**self._judge)
        if self.process_id == 0:
            self._judge |= {"model": reward.model, "tokenizer": reward.tokenizer}

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Adds texts to those that the next `compute` scores; InputError where they are no list of texts."""
        # evaluate itself looks at the first one only, takes a lone string for a list of letters, and makes texts of
        # numbers. Arrays and columns of data sets are fine; a string is no list of texts.
        several = isinstance(predictions, Iterable) and not isinstance(predictions, str)
        listed = list(predictions) if several else predictions
        super().add_batch(predictions=as_texts(listed, "predictions"), **kwargs)

    def _compute(
        self,
        predictions: list[str],
        score_type: str = "probability",
        threshold: float | None = None,
        batch_size: int | None = None,
        device: Any = None,
    ) -> dict[str, Any]:
        if score_type not in THRESHOLDS:
            raise InputError(f"score_type one of {', '.join(THRESHOLDS)}", repr(score_type), "use one of these")
        limit = THRESHOLDS[score_type] if threshold is None else threshold
        if isinstance(limit, bool) or not isinstance(limit, int | float) or math.isnan(limit):
            raise InputError("threshold as a number", repr(threshold), "leave it out for the middle of the scale")
        # The judge is a loaded model by now: nothing is loaded again, whatever the score type or batch size.
        reward = ClassifierReward(**self._judge, score_type=score_type, batch_size=batch_size, device=device)
        scores = reward(predictions)
        if not scores:
            return {self.name: None, "scores": [], "share_above": None}
        above = sum(score > limit for score in scores) / len(scores)
        return {self.name: math.fsum(scores) / len(scores), "scores": scores, "share_above": above}
