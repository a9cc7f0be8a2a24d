"""SimilarityReward: ROUGE of a text against a column of the data set, or against its prompt.

ROUGE is computed by the package `rouge_score`. Leaves out: similarity by embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.names import check_name, clean_name
from trl_rewards_plugin.rewards.texts import as_texts

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
MEASURES = ("fmeasure", "precision", "recall")
LONGEST = 1000
"""Words of a text that are compared: ROUGE-L takes time and memory by the product of both lengths."""


@dataclass(frozen=True)
class SimilarityReward:
    """ROUGE of each completion against a reference, in [0, 1].

        precision = overlap / words of the completion
        recall    = overlap / words of the reference
        fmeasure  = 2 * precision * recall / (precision + recall)

    The overlap is the number of common words ("rouge1"), of common word pairs ("rouge2"), or the length of the
    longest common subsequence of words ("rougeL"). Lin, "ROUGE: A Package for Automatic Evaluation of Summaries"
    (2004). The package's words are runs of a-z and 0-9 after lower-casing: other scripts have none. A reference
    without any word scores None, as a missing one does. Only the first 1,000 words of each text are compared.

    ```python
    SimilarityReward("summary")                      # a column with reference summaries
    SimilarityReward("prompt", measure="precision")  # share of the words that stand in the prompt: no inventions
    ```

    Args:
        reference: The column that holds the reference of each text, or "prompt".
        rouge_type: "rouge1", "rouge2" or "rougeL".
        measure: "fmeasure", "precision" or "recall".
        use_stemmer: Whether words are stemmed (English) before they are compared.
        name: Name of the component; None is `<rouge_type>_<reference>`.

    Raises:
        InputError: an unknown ROUGE type or measure; when called, no such column.
    """

    reference: str
    rouge_type: str = "rougeL"
    measure: str = "fmeasure"
    use_stemmer: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        for what, value, known in (
            ("rouge_type", self.rouge_type, ROUGE_TYPES),
            ("measure", self.measure, MEASURES),
        ):
            if value not in known:
                raise InputError(f"{what} one of {', '.join(known)}", repr(value), "use one of these")
        name = clean_name(f"{self.rouge_type}_{self.reference}") if self.name is None else check_name(self.name)
        # TRL names a reward by its __name__; a frozen dataclass has no other way to set one.
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "__name__", name)

    def __call__(
        self, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """N floats in [0, 1], None where there is no reference; TRL's reward function protocol."""
        texts = as_texts(completions)
        references = column_texts(self.reference, len(texts), prompts, columns, str(self.name))
        from rouge_score.rouge_scorer import RougeScorer

        tokenizer = _Words(self.use_stemmer)
        scorer = RougeScorer([self.rouge_type], tokenizer=tokenizer)
        scores: list[float | None] = []
        for text, reference in zip(texts, references, strict=True):
            if reference is None or not tokenizer.tokenize(reference):
                scores.append(None)
            else:
                scores.append(float(getattr(scorer.score(reference, text)[self.rouge_type], self.measure)))
        return scores


def column_texts(
    column: str, count: int, prompts: Sequence[Any] | None, columns: dict[str, Any], name: str
) -> list[str | None]:
    """The texts of a column of the data set ("prompt" for the prompts), None where the column has none.

    Raises:
        InputError: no such column, or not one text for each of `count` completions.
    """
    offered = {**columns, **({} if prompts is None else {"prompt": prompts})}
    if column not in offered:
        raise InputError(
            f"the column {column!r}, with which reward {name!r} compares",
            f"only {', '.join(offered) or 'completions'}",
            f"pass {'prompts' if column == 'prompt' else column}=, or name another column",
        )
    values = offered[column]
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        raise InputError(
            f"{count} values in {column!r}, one for each completion",
            f"{len(values)}" if isinstance(values, Sequence) else type(values).__name__,
            f"repeat each value of {column!r} once per completion",
        )
    filled = iter(as_texts([value for value in values if value is not None], column))
    return [None if value is None else next(filled) for value in values]


class _Words:
    """rouge_score's own words, the first LONGEST of a text."""

    def __init__(self, use_stemmer: bool):
        from rouge_score.tokenizers import DefaultTokenizer

        self._tokenizer = DefaultTokenizer(use_stemmer)

    def tokenize(self, text: str) -> list[str]:
        tokens: list[str] = self._tokenizer.tokenize(text)
        return tokens[:LONGEST]
