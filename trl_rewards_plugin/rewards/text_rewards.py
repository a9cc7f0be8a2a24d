"""Rewards that need no model; reward files name them `function: length`, `repetition` and `similarity`."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from trl_rewards_plugin.errors import InputError, check_choice
from trl_rewards_plugin.rewards.base import TextReward
from trl_rewards_plugin.rewards.names import clean_name
from trl_rewards_plugin.rewards.texts import column_references

UNITS = ("words", "characters")
LONGEST = 1000  # words of a text that are compared: ROUGE-L takes time and memory by the product of both lengths


@dataclass(frozen=True)
class LengthReward(TextReward):
    """1 for a text within a window of lengths, falling linearly to 0 outside.

        reward = n / min_length                               where n < min_length
               = 1                                            where min_length <= n <= max_length
               = max(0, 1 - (n - max_length) / max_length)    where n > max_length: 0 from twice that on

    Lengths are in "words" (separated by white space) or "characters"; a max_length of None sets no upper end. Without
    any window it is the length itself, for `constraints={"length": {"max": 25}}` or a gate. InputError for an end out
    of range or an unknown unit.
    """

    min_length: int = 0
    max_length: int | None = None
    unit: str = "words"
    name: str = "length"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("unit", self.unit, UNITS)
        found = f"min_length={self.min_length!r}, max_length={self.max_length!r}"
        ends = [self.min_length] if self.max_length is None else [self.min_length, self.max_length]
        if not all(map(_is_count, ends)):
            step = "for example LengthReward(min_length=20, max_length=60)"
            raise InputError("min_length and max_length as whole numbers of at least 0", found, step)
        if self.max_length is not None and self.max_length < max(self.min_length, 1):
            raise InputError("max_length of at least min_length, and at least 1", found, "are they swapped?")

    def score_text(self, text: str) -> float:
        length = len(_units(text, self.unit))
        if (self.min_length, self.max_length) == (0, None):
            return float(length)
        if length < self.min_length:
            return length / self.min_length
        if self.max_length is None or length <= self.max_length:
            return 1.0
        return max(0.0, 1.0 - (length - self.max_length) / self.max_length)


@dataclass(frozen=True)
class RepetitionReward(TextReward):
    """Share of a text's n-grams that are different: 1 where none comes twice, near 0 for a text that goes in circles.

        reward = distinct n-grams / n-grams;  1 for a text with fewer than n words

    with n = `ngram_size`, in words or characters (`unit`), whatever their case: distinct-n within one text (Li et al.
    2016, arXiv 1510.03055). InputError for an n below 1 or an unknown unit.
    """

    ngram_size: int = 3
    unit: str = "words"
    name: str = "distinct"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("unit", self.unit, UNITS)
        if not _is_count(self.ngram_size) or self.ngram_size < 1:
            raise InputError("ngram_size as a whole number above 0", repr(self.ngram_size), "2 to 4 are usual")

    def score_text(self, text: str) -> float:
        units = _units(text.casefold(), self.unit)
        ngrams = [tuple(units[i : i + self.ngram_size]) for i in range(len(units) - self.ngram_size + 1)]
        return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


@dataclass(frozen=True)
class SimilarityReward(TextReward):
    """ROUGE of each completion against a reference, in [0, 1]; of several references the best counts.

        precision = overlap / words of the completion
        recall    = overlap / words of the reference
        fmeasure  = 2 * precision * recall / (precision + recall)

    The overlap is the number of common words ("rouge1"), of common word pairs ("rouge2"), or the length of the
    longest common subsequence of words ("rougeL"). Lin, "ROUGE: A Package for Automatic Evaluation of Summaries"
    (2004), by the package `rouge_score`, whose words are runs of a-z and 0-9 after lower-casing. A reference that is
    missing or has no word scores None. Only the first 1,000 words of each text are compared.

    ```python
    SimilarityReward("summary")                      # a column with reference summaries
    SimilarityReward("prompt", measure="precision")  # share of the words that stand in the prompt: no inventions
    ```

    Args:
        reference: The column that holds the reference, or the list of references, of each text, or "prompt".
        use_stemmer: Whether words are stemmed (English) before they are compared.
        name: None is `<rouge_type>_<reference>`.

    Raises:
        InputError: an unknown ROUGE type or measure; when called, no such column.
    """

    reference: str
    rouge_type: str = "rougeL"
    measure: str = "fmeasure"
    use_stemmer: bool = False
    name: str = None  # type: ignore[assignment]  # never None once it is built

    def __post_init__(self) -> None:
        check_choice("rouge_type", self.rouge_type, ("rouge1", "rouge2", "rougeL"))
        check_choice("measure", self.measure, ("fmeasure", "precision", "recall"))
        if self.name is None:
            object.__setattr__(self, "name", clean_name(f"{self.rouge_type}_{self.reference}"))
        super().__post_init__()

    def values(self, texts: list[str], prompts: Any, columns: dict[str, Any]) -> list[float | None]:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        words = DefaultTokenizer(self.use_stemmer)
        tokenizer = SimpleNamespace(tokenize=lambda text: words.tokenize(text)[:LONGEST])
        scorer = RougeScorer([self.rouge_type], tokenizer=tokenizer)
        found: list[float | None] = []
        references = column_references(self.reference, len(texts), prompts, columns, self.name)
        for text, given in zip(texts, references, strict=True):
            several = [given] if isinstance(given, str) else given or []
            scores = [scorer.score(one, text)[self.rouge_type] for one in several if tokenizer.tokenize(one)]
            found.append(max((float(getattr(score, self.measure)) for score in scores), default=None))
        return found


def _units(text: str, unit: str) -> Sequence[str]:
    return text.split() if unit == "words" else text


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
