"""What a mistyped word was probably meant to be.

Leaves out: what is said about it (errors.py), and names that other libraries give to our settings (cli/train.py).
"""

import difflib
from collections.abc import Iterable


def nearest(word: object, known: Iterable[object]) -> str | None:
    """The known word that is most like `word`, upper and lower case aside; None where none is near."""
    by_folded = {str(option).casefold(): str(option) for option in known}
    near = difflib.get_close_matches(str(word).casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def suggestion(word: object, known: Iterable[object], otherwise: str, shown: str = "{!r}") -> str:
    """The next step after a word that is not known: "did you mean 'x'?", or `otherwise`.

    Args:
        shown: how the nearest word is written.
    """
    near = nearest(word, known)
    return otherwise if near is None else f"did you mean {shown.format(near)}?"


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """The start of a next step, "did you mean 'x'? ", or "" where nothing is near."""
    near = nearest(word, known)
    return "" if near is None else f"did you mean {near!r}? "
