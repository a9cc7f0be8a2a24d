"""Small rewards that need no model: a length window, and how little a text repeats itself. Both lie in [0, 1].

They are plain reward functions with settings: named, picklable, for TRL's trainers as they are, inside a
`MultiClassifierReward` and in reward files (`function: length`). Similarity to a reference is in similarity.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.names import check_name
from trl_rewards_plugin.rewards.texts import as_texts

UNITS = ("words", "characters")


@dataclass(frozen=True)
class LengthReward:
    """1 for a text within a window of lengths, falling linearly to 0 outside.

        reward = n / min_length                               where n < min_length
               = 1                                            where min_length <= n <= max_length
               = max(0, 1 - (n - max_length) / max_length)    where n > max_length: 0 from twice that on

    Args:
        min_length: Shortest length that gets 1.
        max_length: Longest that does; None sets no upper end.
        unit: "words" (separated by white space) or "characters".
        name: Name of the component.

    Raises:
        InputError: no window: both ends open, an end out of range, or an unknown unit.
    """

    min_length: int = 0
    max_length: int | None = None
    unit: str = "words"
    name: str = "length"

    def __post_init__(self) -> None:
        _check_settings(self, self.name, self.unit)
        found = f"min_length={self.min_length!r}, max_length={self.max_length!r}"
        ends = [self.min_length] if self.max_length is None else [self.min_length, self.max_length]
        if not all(map(_is_count, ends)) or ends == [0]:
            raise InputError(
                "min_length and max_length as whole numbers of at least 0, one of them given",
                found,
                "for example LengthReward(min_length=20, max_length=60)",
            )
        if self.max_length is not None and self.max_length < max(self.min_length, 1):
            raise InputError("max_length of at least min_length, and at least 1", found, "are they swapped?")

    def __call__(self, completions: Sequence[Any], **kwargs: Any) -> list[float]:
        """N floats in [0, 1]; TRL's reward function protocol."""
        return [self._score(len(_units(text, self.unit))) for text in as_texts(completions)]

    def _score(self, length: int) -> float:
        if length < self.min_length:
            return length / self.min_length
        if self.max_length is None or length <= self.max_length:
            return 1.0
        return max(0.0, 1.0 - (length - self.max_length) / self.max_length)


@dataclass(frozen=True)
class RepetitionReward:
    """Share of a text's n-grams that are different: 1 where none comes twice, near 0 for a text that goes in circles.

        reward = distinct n-grams / n-grams;  1 for a text with fewer than n words

    This is distinct-n within one text (Li et al. 2016, arXiv 1510.03055). Letter case does not count.

    Args:
        ngram_size: n.
        unit: "words" (separated by white space) or "characters", for languages without spaces.
        name: Name of the component.

    Raises:
        InputError: `ngram_size` is no whole number above 0, or an unknown unit.
    """

    ngram_size: int = 3
    unit: str = "words"
    name: str = "distinct"

    def __post_init__(self) -> None:
        _check_settings(self, self.name, self.unit)
        if not _is_count(self.ngram_size) or self.ngram_size < 1:
            raise InputError("ngram_size as a whole number above 0", repr(self.ngram_size), "2 to 4 are usual")

    def __call__(self, completions: Sequence[Any], **kwargs: Any) -> list[float]:
        """N floats in [0, 1]; TRL's reward function protocol."""
        return [self._score(_units(text.casefold(), self.unit)) for text in as_texts(completions)]

    def _score(self, units: Sequence[str]) -> float:
        ngrams = [tuple(units[i : i + self.ngram_size]) for i in range(len(units) - self.ngram_size + 1)]
        return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


def _units(text: str, unit: str) -> Sequence[str]:
    return text.split() if unit == "words" else text


def _check_settings(reward: Any, name: str, unit: str) -> None:
    # TRL names a reward by its __name__; a frozen dataclass has no other way to set one.
    object.__setattr__(reward, "__name__", check_name(name))
    if unit not in UNITS:
        raise InputError(f"unit one of {', '.join(UNITS)}", repr(unit), "use one of these")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
