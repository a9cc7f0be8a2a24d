import math
from types import SimpleNamespace

import pytest
import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.inference.classifier_rules import (
    check_arguments,
    check_score_type,
    is_independent,
    label_score,
)

LOGITS = torch.tensor([[0.0, math.log(3.0)]])


def test_softmax_by_hand():
    # exp: 1 and 3, so 3/4 for the second label.
    assert label_score(LOGITS, 1, "logit", False).item() == pytest.approx(math.log(3))
    assert label_score(LOGITS, 1, "probability", False).item() == pytest.approx(0.75)
    assert label_score(LOGITS, 1, "log_probability", False).item() == pytest.approx(math.log(0.75))


def test_sigmoid_by_hand():
    # 3 / (1 + 3) again for the second label, but 1/2 for the first, which knows nothing of the second.
    assert label_score(LOGITS, 0, "probability", True).item() == pytest.approx(0.5)
    assert label_score(LOGITS, 0, "probability", False).item() == pytest.approx(0.25)
    assert label_score(LOGITS, 1, "log_probability", True).item() == pytest.approx(math.log(0.75))


def test_log_probabilities_do_not_underflow():
    far = torch.tensor([[0.0, 500.0]])
    assert label_score(far, 0, "log_probability", False).item() == pytest.approx(-500.0)
    assert label_score(-far, 1, "log_probability", True).item() == pytest.approx(-500.0)


def config(problem_type=None, labels=2):
    return SimpleNamespace(problem_type=problem_type, id2label=dict.fromkeys(range(labels), ""))


def test_which_models_use_a_sigmoid():
    assert is_independent(config("multi_label_classification", 3))
    assert is_independent(config(None, 1))
    assert not is_independent(config("single_label_classification", 3))
    assert not is_independent(config(None, 2))


def test_probabilities_of_a_regression_are_refused():
    check_score_type("logit", config("regression", 1))
    for score_type in ("probability", "log_probability"):
        with pytest.raises(InputError, match="regression"):
            check_score_type(score_type, config("regression", 1))


def test_an_unknown_score_type_is_refused():
    with pytest.raises(InputError, match="logit, probability, log_probability"):
        check_arguments("prob")
