"""What the files of a run hold, as far as anyone reads it: the kinds of values under each key.

A shape is a tuple of types; a list of one shape for any number of items, or of one shape per item; or a mapping of
keys to shapes, where "*" stands for all further keys, and a key that ends in "?" may be missing.
"""

from collections.abc import Mapping
from types import NoneType
from typing import Any

_NUMBER: Any = (int, float)
SCORE: Any = (int, float, NoneType)  # None where nothing was scored
_TEXT: Any = (str, NoneType)
_SIDES = ("before", "after", "before_greedy", "after_greedy", "sources", "best_of_16")
_GAIN = {"mean": SCORE, "ci95": [SCORE, SCORE]}

METRICS_SHAPE: Mapping[str, Any] = {
    **{side: {"reward": SCORE, "*": SCORE} for side in _SIDES},
    "reward_gain": {**_GAIN, "n": (int,)},
    "component_gain": {"*": _GAIN},
    "guard": {"*": {"before": SCORE, "after": SCORE}},
    "warnings?": [(str,)],
    "reward_at_kl?": {"*": [[_NUMBER, _NUMBER]]},
    "targets?": {"*": {"min?": _NUMBER, "max?": _NUMBER, "mean": SCORE, "slack": SCORE}},
    **{"kl": SCORE, "episodes": (int,), "seconds": _NUMBER, "seed": (int,)},
    "prompt_cuts?": {"prompts": (int,), "cut": (int,), "limit": (int,), "kept": SCORE},
    "counts?": {"*": {"before": _NUMBER, "after": _NUMBER}},
}
EVALUATION_SHAPE: Mapping[str, Any] = {
    **{"after": (str,), "before": _TEXT, "n": (int,), "bars?": [(str,)], "failed?": [(str,)]},
    "metrics": {"*": {"before?": SCORE, "after?": SCORE, "gain?": {"reward_gain": SCORE, "ci95": [SCORE, SCORE]}}},
}
SETTINGS_SHAPE: Mapping[str, Any] = {
    **{f"{name}?": _TEXT for name in ("preset", "model", "reward", "dataset", "eval_dataset", "prompt_prefix")},
    "held_out_reward?": _TEXT,
    "response_length?": (int, NoneType),
    "seed?": (int, NoneType),
    "made_of?": {
        **{key: [{"name": (str,), "weight": _NUMBER, "model?": _TEXT}] for key in ("rewards?", "held_out_rewards?")},
        **{f"{name}?": _TEXT for name in ("aggregation", "push_to", "held_out", "hardware", "precision")},
        **{f"{name}?": _TEXT for name in ("license", "commit")},
        "disagreement_coef?": _NUMBER,
        "train_rows?": (int, NoneType),
        "epoch_rewards?": [SCORE],
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
    "metrics": [{"*": [SCORE]}],
    "rewards": [{}],
    "total_loss?": (*_NUMBER, NoneType),
    "evaluation_rewards?": [{}],
}
ROW_SHAPE: Mapping[str, Any] = {
    "prompt?": _TEXT,
    **dict.fromkeys(("source", "before", "after"), (str,)),
    **dict.fromkeys(("before_greedy?", "after_greedy?"), _TEXT),
    **dict.fromkeys(("before_reward", "after_reward"), SCORE),
}
LOGGED_NUMBER = _NUMBER
LOGGED_NUMBERS = ("step", "episode", "epoch_reward", "objective/", "rewards/", "tokens/", "multiplier/", "eval_")
"""Beginnings of the log's keys whose values are drawn."""


def mismatch(values: Any, shape: Any, place: str = "it") -> str | None:
    """What in `values` has another shape, in words; None if nothing has."""
    parts: list[tuple[Any, Any, str]] = []
    if isinstance(shape, tuple):
        # JSON and YAML have integers that no float holds.
        fits = isinstance(values, shape) and not isinstance(values, bool)
        fits = fits and not (isinstance(values, int) and abs(values) >= 2**63)
    elif isinstance(shape, list):
        fits = isinstance(values, list) and len(shape) in (1, len(values))
        if fits:
            kinds = shape * len(values) if len(shape) == 1 else shape
            parts = [(value, kinds[index], f"{place}[{index}]") for index, value in enumerate(values)]
    else:
        fits = isinstance(values, dict) and all(isinstance(key, str) for key in values)
        if fits:
            missing = [key for key in shape if not key.endswith(("?", "*")) and key not in values]
            if missing:
                return f"{place} lacks {', '.join(missing)}"
            known = {key.removesuffix("?"): kind for key, kind in shape.items()}
            parts = [(value, known.get(key, known.get("*")), key) for key, value in values.items()]
    if not fits:
        return f"{place} is {values!r}"[:200]
    wrong = (mismatch(value, kind, where) for value, kind, where in parts if kind is not None)
    return next((words for words in wrong if words is not None), None)
