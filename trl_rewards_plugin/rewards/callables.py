"""CallableReward: a plain reward function in TRL's protocol, named, with everything it returns checked."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.names import clean_name, shortened
from trl_rewards_plugin.rewards.scores import RewardScores
from trl_rewards_plugin.rewards.texts import as_texts


class CallableReward(Reward):
    """A function `f(prompts=, completions=, **columns)` that returns one float or None per completion.

    It is given prompts and completions as TRL gives them, texts or chat messages. It is named by its `__name__`, else
    by its class. It can be pickled where the function can.

    Raises:
        InputError: `function` is not callable, is an async function, or is a torch module or a model's name.
    """

    def __init__(self, function: Callable[..., Any]):
        wrap = "wrap it: ClassifierReward(model, label=...)"
        if isinstance(function, torch.nn.Module | str):
            raise InputError("a reward function", f"a model ({type(function).__name__})", wrap)
        if not callable(function):
            raise InputError(
                "a ClassifierReward or a reward function",
                f"{type(function).__name__} {function!r}",
                f"for a model, {wrap}",
            )
        name = getattr(function, "__name__", type(function).__name__)
        # The object's own class is asked as well: a callable object's coroutine is its __call__.
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            raise InputError("a plain reward function", f"the async function {name}", "give TRL that one directly")
        super().__init__(clean_name(name))
        self.function = function

    def _scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> RewardScores:
        scores = self.values(as_texts(completions), completions, prompts, columns)
        return RewardScores(scores, {self.name: scores})

    def values(self, plain: list[str], completions: Any, prompts: Any, columns: dict[str, Any]) -> Tensor:
        """The function's N scores: (N,) float32, NaN where it returned None or NaN.

        Args:
            plain: The completions as texts, for the errors.

        Raises:
            RuntimeError: the function raised; the cause is chained.
            InputError: it returned another number of scores, or one that is infinite or no number.
        """
        shown = shortened(plain[0]) if plain else "no texts at all"
        try:
            returned = self.function(prompts=prompts, completions=completions, **columns)
        except Exception as error:
            raise RuntimeError(
                f"reward {self.name!r} raised {type(error).__name__}: {error}; it was called on {len(plain)} "
                f"completions, the first of them {shown}"
            ) from error
        found = returned.tolist() if hasattr(returned, "tolist") else returned
        if isinstance(found, str) or not isinstance(found, Sequence) or len(found) != len(plain):
            count = f"{len(found)}" if isinstance(found, Sequence) else f"a {type(returned).__name__}"
            raise InputError(
                f"{len(plain)} scores from reward {self.name!r}, one float or None for each completion",
                f"{count}, for the completions that begin with {shown}",
                "return a list with one entry per completion, None where there is nothing to score",
            )
        numbers = [self._number(value, text) for value, text in zip(found, plain, strict=True)]
        return torch.tensor(numbers, dtype=torch.float32)

    def _number(self, value: Any, text: str) -> float:
        if value is None:
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.inf
        # What overflows float32 would be an infinity in the sum.
        if isinstance(value, str) or abs(number) > torch.finfo(torch.float32).max:
            raise InputError(
                f"a finite float or None from reward {self.name!r}",
                f"{value!r} for {shortened(text)}",
                "return None where a text cannot be scored",
            )
        return number

    def describe(self) -> list[dict[str, Any]]:
        """This function as one dict in a list; all but name and weight are None. See `Reward.describe`."""
        keys = ("name", "model", "label", "weight", "score_type", "revision", "pair")
        return [{**dict.fromkeys(keys), "name": self.name, "weight": 1.0}]

    def __repr__(self) -> str:
        return f"CallableReward({self.name})"
