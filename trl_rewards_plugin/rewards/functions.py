"""CallableReward: a reward function in TRL's protocol, plain or async, named, with everything it returns checked.

```python
def keeps_topic(completions, topic):  # "topic" is a column of the data set
    return [float(word in text) for text, word in zip(completions, topic)]

client = httpx.AsyncClient(base_url="http://localhost:8000")

async def judge(prompts, completions):  # a remote judge: all texts at once, together with other async rewards
    answers = await asyncio.gather(*(client.post("/judge", json=pair) for pair in zip(prompts, completions)))
    return [answer.raise_for_status().json()["score"] for answer in answers]
```

Async functions run on the loop of `event_loop.py`.
"""

import functools
import inspect
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from trl_rewards_plugin.errors import InputError, check_no_model, did_you_mean
from trl_rewards_plugin.rewards.base import Reward, check_attempts, checked_scores, named_failure, no_scores
from trl_rewards_plugin.rewards.event_loop import attempted, running
from trl_rewards_plugin.rewards.files.dotted_paths import path_of
from trl_rewards_plugin.rewards.names import clean_name
from trl_rewards_plugin.rewards.texts import as_texts

if TYPE_CHECKING:
    from torch import Tensor


class CallableReward(Reward):
    """Any callable, object or function, that takes its arguments by keyword and returns one float or None per text.

    It gets the arguments in its signature, or all if it takes `**kwargs`: `prompts` and `completions` as TRL has them
    (texts or chat messages), `completion_ids`, `trainer_state`, `log_metric`, `log_extra` and every dataset column.
    It is named by its `__name__`, else its class, unless `name` is given, and can be pickled where the function can.

    Args:
        timeout, retries, on_failure: Of an async function, as in `RemoteReward`: seconds that one call may take, how
            often one that failed is repeated, and what follows the last failure. By default none is repeated.

    Raises:
        InputError: `function` is not callable by keyword, or is a model (a name, a torch module, a pipeline, what has
            `predict_proba`); a setting that does not fit; when called: a column that it asks for is missing, or what
            it returned is not one score per completion.
        RuntimeError: when called: the function raised; the cause is chained.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        on_failure: str = "stop",
    ):
        check_no_model(function, "a ClassifierReward or a reward function")
        bare: Any = function
        while isinstance(bare, functools.partial) and not hasattr(bare, "__name__"):
            bare = bare.func
        super().__init__(clean_name(getattr(bare, "__name__", type(bare).__name__)) if name is None else name)
        self.function = function
        while isinstance(bare, functools.partial):
            bare = bare.func
        # The object's own class is asked as well: a callable object's coroutine is its __call__.
        self.is_async = inspect.iscoroutinefunction(bare) or inspect.iscoroutinefunction(type(bare).__call__)
        check_attempts(timeout, retries, on_failure)
        self.timeout, self.retries, self.on_failure = timeout, retries, on_failure
        if not self.is_async and (timeout, retries, on_failure) != (None, 0, "stop"):
            step = "define it with async def; a plain function cannot be interrupted"
            raise InputError("an async function for timeout, retries, on_failure", f"a plain one, {self.name}", step)
        self._required, self._named, self._takes_all = _parameters(function, self.name)

    def _own_scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> "Tensor":
        as_texts(completions)  # refuses what is neither texts nor chat messages
        call = self.prepared(completions, prompts, columns)
        if self.is_async:
            with running({self.name: call}) as futures:
                return self.result(futures[self.name], completions)
        with named_failure(self.name, completions):
            returned = call()
        return checked_scores(self.name, returned, completions)

    def prepared(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> Callable[[], Any]:
        """The call with the arguments in its signature, if all are there; nothing is called yet."""
        offered = {"prompts": prompts, "completions": completions, **columns}
        for name in self._required:
            if name not in offered:
                step = f"{did_you_mean(name, offered)}add it to the data set, pass it, or give the parameter a default"
                if "completions" not in self._named:
                    step = f"wrap an object that reads its texts as {name!r} in a function f(completions, **kwargs)"
                expected = f"the column {name!r}, which reward {self.name!r} asks for"
                raise InputError(expected, f"only {', '.join(offered)}", step)
        # A column called "self" would collide with a method's own; TRL's protocol knows no such argument.
        wanted = {key: offered[key] for key in offered if key in self._named or (self._takes_all and key != "self")}
        call = functools.partial(self.function, **wanted)
        return functools.partial(attempted, self.name, call, self.timeout, self.retries) if self.is_async else call

    def result(self, future: Future[Any], completions: Any) -> "Tensor":
        """The async function's scores (N,) of N completions, waited for."""
        try:
            with named_failure(self.name, completions):
                returned = future.result()
        except RuntimeError as error:
            if self.on_failure == "stop" and isinstance(error.__cause__, TimeoutError):
                step = "raise timeout= or retries=, or set on_failure='none'"
                raise RuntimeError(f"{error}; {step}") from error.__cause__
            if self.on_failure == "stop":
                raise
            return no_scores(len(completions), str(error))
        return checked_scores(self.name, returned, completions)

    def entry(self) -> dict[str, Any]:
        path = path_of(self.function)
        return super().entry() if path is None else {**super().entry(), **self._changed(), "function": path}


def _parameters(function: Callable[..., Any], name: str) -> tuple[list[str], list[str], bool]:
    """Names of the parameters without default, of all, and whether there is a `**kwargs`."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # functions written in C may have no signature: they get everything
        return [], ["completions"], True
    parameters = signature.parameters.values()
    if any(one.kind is one.POSITIONAL_ONLY and one.default is one.empty for one in parameters):
        expected = f"a reward function that takes its arguments by name ({name!r})"
        raise InputError(expected, f"{name}{signature}", "define it as f(completions, **kwargs)")
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    required = [one.name for one in named if one.default is one.empty]
    return required, [one.name for one in named], any(one.kind is one.VAR_KEYWORD for one in parameters)
