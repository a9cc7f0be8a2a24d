"""A classifier's logits -> one score per text: the logit of a label, its probability, or the log of that."""

from typing import Any

import torch
from torch import Tensor


def is_independent(config: Any) -> bool:
    """True where each label has its own sigmoid: multi-label and single-label models, as in transformers' pipeline."""
    return config.problem_type == "multi_label_classification" or len(config.id2label) == 1


def label_score(logits: Tensor, index: int, score_type: str, independent: bool) -> Tensor:
    """Score (N,) of label `index` for each text, from logits z (N, L) of L labels.

    logit            z[n, i]
    probability      sigmoid(z[n, i]) if independent, else softmax(z[n, :])[i]
    log_probability  the logarithm of that, computed without underflow (nats, at most 0)
    """
    if score_type == "logit":
        return logits[:, index]
    if independent:
        log_probability = torch.nn.functional.logsigmoid(logits[:, index])
    else:
        log_probability = logits.log_softmax(dim=1)[:, index]
    return log_probability if score_type == "log_probability" else log_probability.exp()
