"""How this package refuses bad input: what was expected, what was found, what to do next.

Leaves out: failed uploads (`hub/failures.py`).
"""

import difflib
import functools
import inspect
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
_LONGEST = 2_000
# Of torch's allocator on a CPU, of oneDNN there, of cuBLAS.
_TOO_SMALL = ("DefaultCPUAllocator", "could not create a primitive", "CUBLAS_STATUS_ALLOC_FAILED")
_UNREACHED = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "TransportError", "TimeoutError"}


class _ThreePartError(Exception):
    """Its message has three labelled lines; the attributes of the same names as the arguments hold their texts."""

    def __init__(self, expected: str, found: str, next_step: str):
        found = found or "nothing"
        # What was found may be a whole file on one line.
        lines = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..." for text in (expected, found, next_step)]
        super().__init__("\nExpected: {}\nFound:    {}\nNext:     {}".format(*lines))
        self.expected, self.found, self.next_step = expected, found, next_step

    def __reduce__(self) -> "tuple[type[_ThreePartError], tuple[str, str, str]]":
        # The default would pass the message as the only argument when it crosses a process border.
        return type(self), (self.expected, self.found, self.next_step)


class InputError(_ThreePartError, ValueError):
    """Refused input: what would have been accepted, what was given instead, and what the reader should do now."""


class NoAnswerError(_ThreePartError, RuntimeError):
    """A server that does not answer: what was asked of it, how it failed, and what the reader should do now."""


def nearest(word: object, known: Iterable[object]) -> str | None:
    """The known word that alone begins with `word`, or is most like it, ignoring case, and how flags are dashed.

    None where nothing is close.
    """
    # Of two spellings of a flag the first counts.
    by_letters, letters = {_letters(option): str(option) for option in reversed([*known])}, _letters(word)
    begun = [one for one in by_letters if len(letters) > 2 and one.startswith(letters)]
    near = begun if len(begun) == 1 else difflib.get_close_matches(letters, by_letters, n=1)
    return by_letters[near[0]] if near else None


def _letters(word: object) -> str:
    return str(word).casefold().lstrip("-").replace("-", "_")


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """The start of a next step, "did you mean 'x'? ", or "" where nothing is close."""
    near = nearest(word, known)
    return "" if near is None else f"did you mean {near!r}? "


def check_choice(what: str, value: object, known: Iterable[object], step: str = "use one of these") -> None:
    """Refuses a `value` that is not one of `known`; the next step begins with the nearest of them."""
    known = list(known)
    if value not in known:
        expected = f"{what} as one of {', '.join(map(str, known))}"
        raise InputError(expected, repr(value), f"{did_you_mean(value, known)}{step}")


def refusing_unknown(step: Callable[[str], str]) -> Callable[[type[_T]], type[_T]]:
    """Decorates a dataclass: a keyword that it lacks is an InputError with the next step `step(keyword)`."""

    def decorated(kind: type[_T]) -> type[_T]:
        init, known = kind.__init__, inspect.signature(kind).parameters

        @functools.wraps(init)
        def checked(self: Any, *args: Any, **given: Any) -> None:
            for name in given:
                if name not in known:  # its value may be a secret, or a whole data set
                    raise InputError(f"an argument of {kind.__name__}", repr(name), step(name))
            init(self, *args, **given)

        kind.__init__ = checked  # type: ignore[method-assign]
        return kind

    return decorated


def check_no_model(reward: Any, expected: str) -> None:
    """Refuses a model, or the name of one, where `expected` is a reward: what it returns is not one score per text."""
    import torch
    from transformers import Pipeline

    if hasattr(reward, "predict_proba"):  # SetFit, scikit-learn
        step = "wrap it: def reward(completions, **kwargs): return it.predict_proba(completions)[:, 1].tolist()"
    elif isinstance(reward, Pipeline):
        step = "wrap what it holds: ClassifierReward(pipe.model, tokenizer=pipe.tokenizer, label=...)"
    elif isinstance(reward, str | os.PathLike | torch.nn.Module) or not callable(reward):
        step = "wrap it: ClassifierReward(model, label=...)"
    else:
        return
    raise InputError(expected, f"{type(reward).__name__} {str(reward)[:80]!r}", step)


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised from, outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def kinds_of(error: BaseException) -> set[str]:
    """Names of the classes of `error` and its causes; by name, libraries need not be loaded to be asked about."""
    return {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}


def reward_failure(error: BaseException) -> InputError | None:
    """What the code of a file of the user's own raised, by the line there; None for any other error.

    None as well for what a library or this package raised when called from there: its traceback says more.

    The error that was raised from it, in its words, says what the reward was called on.
    """
    around: BaseException | None = None
    for cause in causes(error):
        said = f"{type(cause).__name__}: {cause}"
        _, is_quoted, called_on = str(around).partition(said)
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(cause.__traceback__)]
        frames = [(code, line) for code, line in frames if not is_stdlib(Path(code.co_filename))]
        own = [(code, line) for code, line in frames[-1:] if not is_library(Path(code.co_filename))]
        if own and is_quoted and not is_out_of_memory(error):
            code, line = own[0]
            path = Path(code.co_filename)
            shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            found = f"{said} at {shown}:{line} in {code.co_qualname.partition('.<locals>')[0]}{called_on}"
            return InputError("a score or None for each text", found, "correct that line, or return None there")
        around = cause
    return None


def is_stdlib(path: Path) -> bool:
    """Whether code is the standard library's, which may lie in no file: "<frozen importlib._bootstrap>"."""
    return not path.is_file() or (path.is_relative_to(sysconfig.get_path("stdlib")) and not is_library(path))


def is_library(path: Path) -> bool:
    """Whether a file of code is this package's or an installed library's."""
    return path.is_relative_to(Path(__file__).parent) or bool({"site-packages", "dist-packages"} & {*path.parts})


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator's memory, or the CPU's, was too small; some libraries say so only in words."""
    said = any(words in str(cause) for cause in causes(error) for words in _TOO_SMALL)
    return said or bool(kinds_of(error) & {"OutOfMemoryError", "MemoryError"})


def is_unreached(error: BaseException) -> bool:
    """Whether a server, such as the Hub, could not be asked."""
    return bool(kinds_of(error) & _UNREACHED)
