"""A reward's weight over training: how far training is, and the factor on the weight at that point. Pure functions."""

import itertools
from collections.abc import Mapping
from typing import Any

from trl_rewards_plugin.errors import InputError


def training_progress(trainer_state: Any) -> float:
    """global_step / max_steps of a `transformers.TrainerState`, from 0 at the start of training to at most 1.

    Raises:
        InputError: no state, or one of a training that has not begun.
    """
    step = getattr(trainer_state, "global_step", None)
    steps = getattr(trainer_state, "max_steps", None)
    if step is None or steps is None:
        raise InputError(
            "trainer_state=, which weight_schedule reads",
            repr(trainer_state),
            "GRPO, RLOO and Seq2SeqPPOTrainer pass it; elsewhere leave weight_schedule out, and use score(), which "
            "weighs without it, for scoring",
        )
    if steps <= 0:
        raise InputError(
            "a trainer_state with max_steps above 0", f"max_steps={steps}", "call the reward from within training"
        )
    return float(min(step / steps, 1.0))


def interpolated(points: Mapping[float, float], at: float) -> float:
    """Piecewise linear function through `points`, constant before the first and after the last.

    f(x) = y1 + (y2 - y1) * (x - x1) / (x2 - x1)   between the neighbours x1 <= x <= x2 of x
    """
    places = sorted(points)
    if at <= places[0]:
        return points[places[0]]
    for left, right in itertools.pairwise(places):
        if at <= right:
            return points[left] + (points[right] - points[left]) * (at - left) / (right - left)
    return points[places[-1]]
