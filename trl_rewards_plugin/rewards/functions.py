"""CallableReward: a reward function in TRL's protocol, plain or async, named, with everything it returns checked.

```python
def shouts(completions, **kwargs):
    return [-1.0 if re.search(r"[A-Z]{4,}", text) else 0.0 for text in completions]

def keeps_topic(completions, topic):  # "topic" is a column of the data set
    return [float(word in text) for text, word in zip(completions, topic)]

client = httpx.AsyncClient(base_url="http://localhost:8000")

async def judge(prompts, completions):  # a remote judge: all texts at once, together with other async rewards
    pairs = zip(prompts, completions)
    answers = await asyncio.gather(*(client.post("/judge", json=pair) for pair in pairs))
    return [answer.raise_for_status().json()["score"] for answer in answers]

MultiClassifierReward([ClassifierReward(...), shouts, keeps_topic, judge])
```
"""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.event_loop import running
from trl_rewards_plugin.rewards.failures import failure, first_of
from trl_rewards_plugin.rewards.names import clean_name, shortened
from trl_rewards_plugin.rewards.scores import RewardScores
from trl_rewards_plugin.rewards.texts import as_texts

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class CallableReward(Reward):
    """A function that is called by keyword and returns one float or None per completion.

    It is given what it names, or all where it takes `**kwargs`: `prompts` and `completions` as TRL gives them (texts
    or chat messages), `completion_ids`, `trainer_state`, `log_metric`, `log_extra` and every column of the data set.
    An async function runs on an event loop in another thread. It is named by its `__name__`, else by its class, unless
    `name` is given. It can be pickled where the function can.

    Raises:
        InputError: `function` is not callable by keyword, or is a torch module or a model's name.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None):
        wrap = "wrap it: ClassifierReward(model, label=...)"
        if isinstance(function, torch.nn.Module | str):
            raise InputError("a reward function", f"a model ({type(function).__name__})", wrap)
        if not callable(function):
            raise InputError(
                "a ClassifierReward or a reward function",
                f"{type(function).__name__} {function!r}",
                f"for a model, {wrap}",
            )
        bare = function
        while isinstance(bare, functools.partial):
            bare = bare.func
        super().__init__(clean_name(getattr(bare, "__name__", type(bare).__name__)) if name is None else name)
        self.function = function
        # The object's own class is asked as well: a callable object's coroutine is its __call__.
        self.is_async = inspect.iscoroutinefunction(bare) or inspect.iscoroutinefunction(type(bare).__call__)
        self._required, self._named, self._takes_all = _parameters(function, self.name)

    def _scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> RewardScores:
        plain = as_texts(completions)
        arguments = self.arguments(completions, prompts, columns)
        if self.is_async:
            with running({self.name: self.call(arguments)}) as futures:
                scores = self.result(futures[self.name], plain)
        else:
            scores = self.values(arguments, plain)
        return RewardScores(scores, {self.name: scores})

    def arguments(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> dict[str, Any]:
        """The keywords that the function is called with; nothing is called yet.

        Raises:
            InputError: a parameter without default that nothing was given for.
        """
        offered = {"prompts": prompts, "completions": completions, **columns}
        for name in self._required:
            if name not in offered:
                raise InputError(
                    f"the column {name!r}, which reward {self.name!r} asks for",
                    f"only {', '.join(offered)}",
                    f"{did_you_mean(name, offered)}pass it, add it to the data set, or give the parameter a default",
                )
        return offered if self._takes_all else {key: offered[key] for key in self._named if key in offered}

    def call(self, arguments: dict[str, Any]) -> Callable[[], Any]:
        """The call with these arguments, to be made elsewhere."""
        return functools.partial(self.function, **arguments)

    def values(self, arguments: dict[str, Any], plain: list[str]) -> Tensor:
        """The plain function's N scores: (N,) float32, NaN where it returned None or NaN.

        Args:
            arguments: As `arguments` gives them.
            plain: The completions as texts, for the errors.

        Raises:
            RuntimeError: the function raised; the cause is chained.
            InputError: it returned another number of scores, or one that is infinite or no number.
        """
        try:
            returned = self.function(**arguments)
        except Exception as error:
            raise failure(self.name, error, plain) from error
        return self._checked(returned, plain)

    def result(self, future: Future[Any], plain: list[str]) -> Tensor:
        """The async function's N scores, waited for; as `values`."""
        try:
            returned = future.result()
        except Exception as error:
            raise failure(self.name, error, plain) from error
        return self._checked(returned, plain)

    def _checked(self, returned: Any, plain: list[str]) -> Tensor:
        found = returned.tolist() if hasattr(returned, "tolist") else returned
        if isinstance(found, str) or not isinstance(found, Sequence) or len(found) != len(plain):
            step = "return a list with one entry per completion, None where there is nothing to score"
            if inspect.iscoroutine(returned):
                returned.close()
                step = "define the reward itself with async def, so that it is known to be awaited"
            count = f"{len(found)}" if isinstance(found, Sequence) else f"a {type(returned).__name__}"
            raise InputError(
                f"{len(plain)} scores from reward {self.name!r}, one float or None for each completion",
                f"{count}, for the completions that begin with {first_of(plain)}",
                step,
            )
        numbers = [self._number(value, text) for value, text in zip(found, plain, strict=True)]
        return torch.tensor(numbers, dtype=torch.float32)

    def _number(self, value: Any, text: str) -> float:
        if value is None:
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
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
        """This function as one dict in a list; see `Reward.describe`."""
        keys = ("name", "model", "label", "weight", "score_type", "revision", "pair")
        return [{**dict.fromkeys(keys), "name": self.name, "weight": 1.0}]

    def __repr__(self) -> str:
        return f"CallableReward({self.name})"


def _parameters(function: Callable[..., Any], name: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Names of the parameters without default, of all, and whether there is a `**kwargs`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # functions written in C need not tell: they get everything
        return (), (), True
    if any(p.kind is p.POSITIONAL_ONLY and p.default is p.empty for p in parameters):
        raise InputError(
            f"a reward function that takes its arguments by name ({name!r})",
            f"{name}{inspect.signature(function)}",
            "define it as f(completions, **kwargs)",
        )
    named = [p for p in parameters if p.kind in _BY_NAME]
    required = tuple(p.name for p in named if p.default is p.empty)
    return required, tuple(p.name for p in named), any(p.kind is p.VAR_KEYWORD for p in parameters)
