"""What the arguments of `ClassifierReward` must be, by themselves and for a model's config, and what its score is.

Imports no torch: a reward file is checked before that is loaded.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rewards_plugin.errors import InputError, check_choice, did_you_mean
from trl_rewards_plugin.places import holds_model
from trl_rewards_plugin.rewards.names import clean_name

if TYPE_CHECKING:
    from torch import Tensor

EXPECTED = "a text classifier: a folder, or an id on the Hub"

# Families that count positions from the pad token's index on: the first `pad_token_id + 1` of
# `max_position_embeddings` are never used, so that RoBERTa's 514 take 512 tokens.
_OFFSET_POSITIONS = {
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


def check_saved(folder: Path) -> None:
    """Refuses a folder that holds no saved judge or adapter; what is no folder may be on the Hub."""
    if folder.is_dir() and not holds_model(folder):
        step = "pass a folder that save_pretrained() wrote"
        raise InputError(EXPECTED, f"the folder {folder} without config.json", step)


def check_arguments(
    score_type: Any = "logit",
    pair: Any = None,
    batch_size: Any = None,
    max_length: Any = None,
    offload: Any = None,
    **others: Any,
) -> None:
    """Refuses what no classifier can be asked for; `others` depend on the model or the machine."""
    check_choice("score_type", score_type, ("logit", "probability", "log_probability"))
    if pair not in (None, "prompt"):
        raise InputError("pair=None or pair='prompt'", repr(pair), "use 'prompt' to score (prompt, completion)")
    for what, value in (("batch_size", batch_size), ("max_length", max_length)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            step = f"leave {what} out to have it set"
            raise InputError(f"{what} as a positive whole number, or None", repr(value), step)
    if offload not in (None, "cpu", "disk"):
        step = "use 'cpu' where the accelerator is too small, 'disk' where the CPU's memory is"
        raise InputError("offload=None, 'cpu' or 'disk'", repr(offload), step)


def label_index(config: Any, model_id: str, label: Any, score_type: Any = "logit", max_length: Any = None) -> int:
    """Index of `label`, its name or index, in the model's config; refused where it, or the others, do not fit it."""
    limit = position_limit(config)
    if max_length is not None and limit is not None and max_length > limit:
        expected = f"max_length of at most {limit}, which the model's positions allow"
        raise InputError(expected, str(max_length), "lower it, or leave it out")
    check_score_type(score_type, config)
    names = [str(config.id2label[index]) for index in sorted(config.id2label)]
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        return label
    if names.count(label) == 1:
        return names.index(label)
    known = ", ".join(f"{index}: {name!r}" for index, name in enumerate(names))
    if label in names:
        raise InputError("a label name that the model has once", repr(label), f"give the index instead; {known}")
    step = f"{did_you_mean(label, names)}use one of these labels"
    raise InputError(f"a label of {model_id}, by name or index: {known}", repr(label), step)


def default_name(model_id: str, label: str) -> str:
    """The name of a reward that is given none: `<last part of the model's name>_<label>`."""
    last_part = os.path.basename(model_id.rstrip("/\\"))
    return clean_name(f"{last_part}_{label}")


def check_score_type(score_type: str, config: Any) -> None:
    """Refuses with an InputError probabilities from a regression model."""
    if score_type != "logit" and config.problem_type == "regression":
        expected = f"a classification model for score_type={score_type!r}"
        found = "a regression model (problem_type 'regression'), whose output is not log-odds"
        raise InputError(expected, found, "use score_type='logit', its raw output")


def position_limit(config: Any) -> int | None:
    """Tokens that the model's position embeddings allow; None where the config names no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.model_type in _OFFSET_POSITIONS:
        pad = getattr(config, "pad_token_id", None)
        positions -= (1 if pad is None else pad) + 1
    return positions


def is_independent(config: Any) -> bool:
    """True where each label has its own sigmoid: multi-label and single-label models, as in transformers' pipeline."""
    return config.problem_type == "multi_label_classification" or len(config.id2label) == 1


def label_score(logits: "Tensor", index: int, score_type: str, independent: bool) -> "Tensor":
    """Score (N,) of label `index` for each text, from logits z (N, L) of L labels.

    logit            z[n, i]
    probability      sigmoid(z[n, i]) if independent, else softmax(z[n, :])[i]
    log_probability  the logarithm of that, computed without underflow (nats, at most 0)
    """
    from torch.nn.functional import logsigmoid

    if score_type == "logit":
        return logits[:, index]
    log_probability = logsigmoid(logits[:, index]) if independent else logits.log_softmax(dim=1)[:, index]
    return log_probability if score_type == "log_probability" else log_probability.exp()
