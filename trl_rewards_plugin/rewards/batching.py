"""Which texts go through the classifier together. Pure: lengths in, lists of indices out."""

from collections.abc import Sequence

TOKEN_BUDGET = 16_384
"""Padded tokens in one forward pass where no batch size is given: 32 texts of 512 tokens, or 512 texts of 32."""


def token_batches(
    lengths: Sequence[int], batch_size: int | None = None, token_budget: int = TOKEN_BUDGET
) -> list[list[int]]:
    """Indices of N texts in batches of texts of like length, longest first.

    A batch holds at most `batch_size` texts where that is given. Else texts x (longest text's tokens) stays within
    `token_budget`; a text longer than the budget is a batch of its own. Longest first means that a batch that is too
    large for the memory fails at once and not after an hour.

    Args:
        lengths: Tokens of each text, (N,).
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches:
            size = len(batches[-1]) + 1
            fits = size <= batch_size if batch_size is not None else size * longest <= token_budget
            if fits:
                batches[-1].append(index)
                continue
        batches.append([index])
        longest = max(lengths[index], 1)
    return batches


def unique_rows(rows: Sequence[tuple[str, str | None]]) -> tuple[list[tuple[str, str | None]], list[int]]:
    """The M distinct rows in order of first appearance, and for each of the N rows its place among them."""
    places: dict[tuple[str, str | None], int] = {}
    index = [places.setdefault(row, len(places)) for row in rows]
    return list(places), index
