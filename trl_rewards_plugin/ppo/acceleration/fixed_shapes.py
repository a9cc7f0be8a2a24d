"""Few shapes: what a GPU runs in a loop is padded to a few widths, so that kernels and graphs are found again."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

_fixed: ContextVar[bool] = ContextVar("fixed_shapes", default=False)


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Within it shapes alone decide what is computed, and no data, as in the packed ways of a CPU."""
    token = _fixed.set(True)
    try:
        yield
    finally:
        _fixed.reset(token)


def shapes_are_fixed() -> bool:
    """Whether `fixed_shapes()` holds here."""
    return _fixed.get()


class Widths(NamedTuple):
    """The widths that prompts and responses are padded to: multiples of this many tokens. 1 pads nothing."""

    prompt: int = 1
    response: int = 1


FREE = Widths()
FEW = Widths(prompt=64, response=16)


def round_up(length: int, multiple: int, most: int) -> int:
    """The next multiple of `multiple`, but at most `most`."""
    return min(-(-length // multiple) * multiple, most)
