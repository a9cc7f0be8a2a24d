"""What the files of a run hold, as far as anyone reads it: the kinds of values under each key.

A shape is a tuple of types; a list of one shape for any number of items, or of one shape per item; or a mapping of
keys to shapes, where "*" stands for all further keys, and a key that ends in "?" may be missing. Leaves out: reading
(`read.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

_NUMBER: Any = (int, float)
_SCORE: Any = (int, float, NoneType)  # None where nothing was scored
_TEXT: Any = (str, NoneType)
_SCORES = {"reward": _SCORE, "*": _SCORE}
_GAIN = {"mean": _SCORE, "ci95": [_SCORE, _SCORE]}

METRICS_SHAPE: Mapping[str, Any] = {
    "before": _SCORES,
    "after": _SCORES,
    "before_greedy": _SCORES,
    "after_greedy": _SCORES,
    "sources": _SCORES,
    "best_of_16": _SCORES,
    "reward_gain": {**_GAIN, "n": (int,)},
    "component_gain": {"*": _GAIN},
    "guard": {"*": {"before": _SCORE, "after": _SCORE}},
    "kl": _SCORE,
    "episodes": (int,),
    "seconds": _NUMBER,
    "seed": (int,),
}
SETTINGS_SHAPE: Mapping[str, Any] = {
    **{f"{name}?": _TEXT for name in ("preset", "model", "reward", "dataset", "eval_dataset", "prompt_prefix")},
    "response_length?": (int, NoneType),
    "seed?": (int, NoneType),
    "made_of?": {
        "rewards?": [{"name": (str,), "weight": _NUMBER, "model?": _TEXT}],
        **{f"{name}?": _TEXT for name in ("aggregation", "push_to", "held_out", "hardware", "precision")},
        **{f"{name}?": _TEXT for name in ("license", "commit")},
        "train_rows?": (int, NoneType),
        "epoch_rewards?": [_SCORE],
        "energy?": {"*": _NUMBER},
        "versions?": {"*": (str,)},
    },
}
# As `ppo/checkpoints/state.py` writes it.
RUN_STATE_SHAPE: Mapping[str, Any] = {
    "kl_coef": _NUMBER,
    "episodes": (int,),
    "epoch_scores": [_NUMBER, (int,)],
    "seconds": _NUMBER,
    "alarms": {"*": (int,)},
    "metrics": [{"*": [_SCORE]}],
    "rewards": [{}],
    "total_loss?": (*_NUMBER, NoneType),
    "evaluation_rewards?": [{}],
}
ROW_SHAPE: Mapping[str, Any] = {
    "prompt?": _TEXT,
    "source": (str,),
    "before": (str,),
    "after": (str,),
    "before_reward": _SCORE,
    "after_reward": _SCORE,
}
LOGGED_NUMBER = _NUMBER
LOGGED_NUMBERS = ("step", "episode", "epoch_reward", "objective/", "rewards/", "tokens/", "eval_")
"""Beginnings of the log's keys whose values are drawn."""


def mismatch(values: Any, shape: Any, place: str = "it") -> str | None:
    """What in `values` has another shape, in words; None if nothing has."""
    if isinstance(shape, tuple):
        fits = isinstance(values, shape) and (bool in shape or not isinstance(values, bool))
        return None if fits else f"{place} is {values!r}"[:200]
    if isinstance(shape, list):
        if not isinstance(values, list) or (len(shape) > 1 and len(values) != len(shape)):
            return f"{place} is {values!r}"[:200]
        kinds = shape * len(values) if len(shape) == 1 else shape
        places = [f"{place}[{index}]" for index in range(len(values))]
        parts = list(zip(values, kinds, places, strict=True))
    else:
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            return f"{place} is {values!r}"[:200]
        missing = [key for key in shape if not key.endswith(("?", "*")) and key not in values]
        if missing:
            return f"{place} lacks {', '.join(missing)}"
        known = {key.removesuffix("?"): kind for key, kind in shape.items()}
        parts = [(value, known.get(key, known.get("*")), key) for key, value in values.items()]
    wrong = (mismatch(value, kind, where) for value, kind, where in parts if kind is not None)
    return next((words for words in wrong if words is not None), None)
