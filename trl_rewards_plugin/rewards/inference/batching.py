"""Which texts go through the classifier together. Pure: lengths in, lists of indices out."""

from collections.abc import Iterator, Sequence

TOKEN_BUDGET = 16_384
"""Padded tokens in one forward pass on an accelerator: 32 texts of 512 tokens, or 512 texts of 32."""

CPU_TOKEN_BUDGET = 768
"""The same on a CPU: enough to use it fully, few enough that texts of like length are alone with each other."""

WINDOW_TEXTS = 4_096
WINDOW_CHARACTERS = 4_000_000

Row = tuple[str, str | None]
"""A text, and the prompt that it is paired with."""


def token_batches(
    lengths: Sequence[int], batch_size: int | None = None, token_budget: int | None = TOKEN_BUDGET
) -> list[list[int]]:
    """Indices of N texts of `lengths` tokens in batches of texts of like length, longest first.

    A batch holds at most `batch_size` texts, and texts x (longest text's tokens) stays within `token_budget`; None
    sets no such limit. Longest first, a batch that is too large for the memory fails at once and not after an hour.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches:
            size = len(batches[-1]) + 1
            within = token_budget is None or size * longest <= token_budget
            if within and (batch_size is None or size <= batch_size):
                batches[-1].append(index)
                continue
        batches.append([index])
        longest = max(lengths[index], 1)
    return batches


def unique_rows(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The M distinct rows in order of first appearance, and for each of the N rows its place among them."""
    places: dict[Row, int] = {}
    index = [places.setdefault(row, len(places)) for row in rows]
    return list(places), index


def windows(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """`rows` in order, in slices of at most 4,096 texts and 4 million characters (one text may have more).

    A slice's token ids are all that is in memory beside the texts and their scores, however many texts there are.
    """
    start = characters = 0
    for index, (text, prompt) in enumerate(rows):
        size = len(text) + len(prompt or "")
        if index > start and (index - start == WINDOW_TEXTS or characters + size > WINDOW_CHARACTERS):
            yield rows[start:index]
            start, characters = index, 0
        characters += size
    if rows:
        yield rows[start:]
