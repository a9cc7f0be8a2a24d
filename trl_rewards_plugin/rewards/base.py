"""What every reward has: a name, TRL's call, scores with their parts, an entry in reward files, TRL's module face.

Needs torch only where something is scored: the rewards of a file are built, and so checked, before it is loaded.
"""

import contextlib
import dataclasses
import inspect
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rewards_plugin.errors import InputError, check_choice
from trl_rewards_plugin.rewards.files.dotted_paths import path_of
from trl_rewards_plugin.rewards.names import check_name, total_name
from trl_rewards_plugin.rewards.texts import as_texts, called_on, shortened

if TYPE_CHECKING:
    from torch import Tensor

    from trl_rewards_plugin.rewards.reward_model import RewardModel

logger = logging.getLogger(__name__)

DESCRIBED = ("name", "model", "label", "weight", "score_type", "revision", "pair")
"""Keys of every row of `Reward.describe()`."""
_LARGEST = (2 - 2**-23) * 2.0**127  # of float32
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class RewardScores:
    """Total (N,), and raw components (N,) by name, of N texts: float32 on the CPU, NaN where there is no score."""

    total: "Tensor"
    components: "dict[str, Tensor]"

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of N rows: `total` (`total_total` beside a component of that name), and components."""
        import pandas

        scores = {total_name("total", self.components): self.total, **self.components}
        return pandas.DataFrame({name: values.numpy() for name, values in scores.items()})

    def log(self, columns: Mapping[str, Any], within: str) -> None:
        """Hands each component to the trainer's `log_metric` and `log_extra`, by its name after `within`."""
        log_metric, log_extra = columns.get("log_metric"), columns.get("log_extra")
        for name, values in self.components.items():
            # A mean over nothing is NaN and would poison the average of the logging step.
            if log_metric is not None and not values.isnan().all():
                log_metric(f"rewards/{within}{name}/mean", values.nanmean().item())
                scored = values[~values.isnan()]
                if len(scored) > 1:
                    log_metric(f"rewards/{within}{name}/std", scored.std().item())
            if log_extra is not None:
                log_extra(f"{within}{name}", values.tolist())


class Reward:
    """A named reward function in TRL's protocol. Never an `nn.Module`: TRL would read `logits[:, 0]` off it."""

    name: str

    def __init__(self, name: str):
        self.name = check_name(name)

    @property
    def __name__(self) -> str:
        # TRL names a reward's columns by it.
        return self.name

    # `self` by position alone, here and below: a data set may have a column of that name.
    def __call__(
        self, /, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **kwargs: Any
    ) -> list[float]:
        """Total reward of each of N completions; TRL's reward function protocol.

        Args:
            completions: N texts, or N lists of chat messages, of which the last message's content is scored.
            prompts: N prompts in either form; only needed by rewards that read them.
            **kwargs: TRL's further arguments and dataset columns, N values each, for rewards that read them.

        Returns:
            N floats, NaN (of a `TextReward` None) where nothing scored the text.

        Raises:
            InputError: an item is not a text (its index is named), or the counts differ.
        """
        return self._scores(completions, prompts, kwargs).total.tolist()

    def score(self, /, texts: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any) -> RewardScores:
        """Total (N,) and components, each (N,) and before weighting, of N texts; arguments and errors as in a call."""
        return self._scores(texts, prompts, columns)

    # The columns come as one dict in what follows: a data set may well have a column named "texts".
    def _scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> RewardScores:
        scores = self._own_scores(completions, prompts, columns)
        return RewardScores(scores, {self.name: scores})

    def _own_scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> "Tensor":
        """(N,) float32 on the CPU, NaN where there is no score."""
        raise NotImplementedError

    def component_names(self) -> list[str]:
        """The K component names, in order."""
        return [self.name]

    def component(self, name: str) -> "Reward":
        """The component of this name alone, raw, as a reward function; InputError where there is none."""
        check_choice("component", name, self.component_names())
        return self

    def entry(self) -> dict[str, Any]:
        """Its entry in a reward file: every argument that is not at its default; of what no file can name, a name."""
        return {"name": self.name}

    def __repr__(self) -> str:
        entry = {**self.entry()}
        for key in entry.keys() & {"model", "tokenizer", "metric", "function"}:  # no log needs their folders
            if isinstance(entry[key], str) and Path(entry[key]).is_absolute():
                entry[key] = Path(entry[key]).name
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in entry.items())})"

    def _changed(self, of: type | None = None) -> dict[str, Any]:
        """The arguments, `of` this class or its own, that are not at their default, as YAML values; all attributes."""
        settings = inspect.signature(of or type(self)).parameters.values()
        given = {one.name: getattr(self, one.name) for one in settings if getattr(self, one.name) != one.default}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}

    def describe(self) -> list[dict[str, Any]]:
        """One dict per component, of plain values: the keys of DESCRIBED (None where they do not apply) and `entry()`.

        `{"rewards": describe()}` is a reward file, as long as every component can be named and the sum is weighted.
        """
        return [{**dict.fromkeys(DESCRIBED), **self.entry(), "weight": 1.0}]

    def as_reward_model(
        self,
        processing_class: Any,
        *,
        prompts: Iterable[Any] | None = None,
        response_template: str | None = None,
        part: str = "response",
    ) -> "RewardModel":
        """This reward as the `reward_model` of TRL's PPOTrainer (up to 1.12): see `RewardModel`.

        InputError for `weight_schedule` and `constraints`, here and in combinations within.
        """
        from trl_rewards_plugin.rewards.reward_model import RewardModel

        for row in rows_within(self):
            if found := [key for key in ("weight_schedule", "constraints") if row.get(key)]:
                expected = "a reward without weight_schedule and constraints, as PPOTrainer reports no progress to it"
                raise InputError(expected, f"{found[0]} of {row['name']!r}", "build the reward without them")

        return RewardModel(self, processing_class, prompts=prompts, response_template=response_template, part=part)


class TextReward(Reward):
    """A reward in Python: a subclass, often a frozen dataclass, defines `score_text`, or `values` to read columns."""

    def __post_init__(self) -> None:
        check_name(self.name)

    def score_text(self, text: str) -> float | None:
        """The score of one text; None where there is nothing to score."""
        raise NotImplementedError

    def values(self, texts: list[str], prompts: Any, columns: dict[str, Any]) -> list[float | None]:
        """The scores of N texts, None where there is nothing to score; prompts and columns have N values each."""
        return [self.score_text(text) for text in texts]

    def __call__(  # type: ignore[override]  # None is TRL's own way to say that there is no score
        self, /, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **kwargs: Any
    ) -> list[float | None]:
        return self.values(as_texts(completions), prompts, kwargs)

    def _own_scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> "Tensor":
        texts = as_texts(completions)
        with named_failure(self.name, texts):
            returned = self.values(texts, prompts, columns)
        return checked_scores(self.name, returned, texts)

    def entry(self) -> dict[str, Any]:
        path = path_of(type(self)) if dataclasses.is_dataclass(self) else None
        return {**super().entry(), **({} if path is None else {"function": path, **self._changed()})}


@contextlib.contextmanager
def named_failure(name: str, given: Sequence[Any]) -> Iterator[None]:
    """Whatever reward `name` raises on what it was `given` becomes a RuntimeError that says so; refusals stay."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # exit() in a reward would end training with exit code 0
        raise RuntimeError(f"reward {name!r} raised {type(error).__name__}: {error}; {called_on(given)}") from error


def rows_within(reward: Any) -> Iterator[dict[str, Any]]:
    """The rows of `describe()` of a combination and of those within it; none of any other reward."""
    reward = getattr(reward, "function", reward)
    if hasattr(reward, "rewards") and hasattr(reward, "describe"):
        yield from reward.describe()
        for part in reward.rewards:
            yield from rows_within(part)


def check_attempts(timeout: float | None, retries: int, on_failure: str) -> None:
    """Refuses settings of rewards that may fail: see `CallableReward` and `RemoteReward`."""
    check_choice("on_failure", on_failure, ("stop", "none"))
    waits = timeout is None or (isinstance(timeout, Real) and timeout > 0)
    if not waits or not isinstance(retries, Integral) or retries < 0:
        step = f"{without_quotes(timeout, retries)}leave them out to get the defaults"
        expected = "timeout above 0, retries of at least 0, as numbers"
        raise InputError(expected, f"timeout={timeout!r}, retries={retries!r}", step)


def without_quotes(*values: Any) -> str:
    """The start of a next step where one of `values` is a number in quotes; else ""."""
    quoted = [value for value in values if isinstance(value, str) and _NUMBER.fullmatch(value)]
    return f"write {', '.join(quoted)} without quotes, or " if quoted else ""


def no_scores(count: int, why: str) -> "Tensor":
    """NaN (count,), and a warning that says why."""
    import torch

    logger.warning("%s; %s no score", why, "1 text gets" if count == 1 else f"{count} texts get")
    return torch.full((count,), math.nan)


def checked_scores(name: str, returned: Any, given: Sequence[Any]) -> "Tensor":
    """`returned` by reward `name` for N completions as (N,) float32, NaN for None; InputError for no N numbers."""
    found = returned.tolist() if hasattr(returned, "tolist") else returned
    if isinstance(found, str) or not isinstance(found, Sequence) or len(found) != len(given):
        step = "return a list with one entry per completion, None where there is nothing to score"
        if inspect.iscoroutine(returned):
            returned.close()
            step = "define the reward itself with async def, so that it is known to be awaited"
        count = f"{len(found)}" if isinstance(found, Sequence) else f"a {type(returned).__name__}"
        expected = f"{len(given)} scores from reward {name!r}, one float or None for each completion"
        raise InputError(expected, f"{count}; {called_on(given)}", step)
    import torch

    numbers = [_number(name, one, item) for one, item in zip(found, given, strict=True)]
    return torch.tensor(numbers, dtype=torch.float32)


def _number(name: str, value: Any, given: Any) -> float:
    if value is None:
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    # What overflows float32 would be an infinity in the sum.
    if isinstance(value, str) or abs(number) > _LARGEST:
        step = "return None where a text cannot be scored"
        raise InputError(f"a finite float or None from reward {name!r}", f"{value!r} for {shortened(given)}", step)
    return number
