"""Texts -> token ids, made once where several classifiers read them alike, and token ids -> padded tensors."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock
from trl_rewards_plugin.rewards.texts import valid_unicode

WINDOW_TEXTS = 4_096
WINDOW_CHARACTERS = 4_000_000

Row = tuple[str, str | None]  # a text, and the prompt that it is paired with

Encoded = dict[str, list[list[int]]]
"""What a tokenizer gives for N texts (`input_ids`, `attention_mask` ...), each a list of N lists."""


def encode(tokenizer: Any, rows: Sequence[Row], max_length: int) -> Encoded:
    """Token ids of N texts, or of N (prompt, text) pairs, cut to `max_length` tokens.

    A row without any token (an empty text, where the tokenizer adds no special ones) becomes a single special token,
    so that it has a score too.
    """
    own = [valid_unicode(text) for text, _ in rows]
    if rows[0][1] is None:
        encoded = tokenizer(own, truncation=True, max_length=max_length)
    else:
        prompts = [valid_unicode(prompt or "") for _, prompt in rows]
        encoded = tokenizer(prompts, own, truncation=True, max_length=max_length)
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    stand_in = next(token for token in known if token is not None)
    empty = [index for index, ids in enumerate(encoded["input_ids"]) if not ids]
    for key, values in encoded.items():
        fill = {"input_ids": stand_in, "attention_mask": 1}.get(key, 0)
        for index in empty:
            values[index] = [fill]
    return dict(encoded)


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


class EncodingMemo:
    """The last slice's token ids, for the next classifier whose tokenizer would make the same ones; pickled empty."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._last: tuple[tuple[Any, ...], Encoded] | None = None

    def encode(self, tokenizer: Any, fingerprint: str | None, rows: Sequence[Row], max_length: int) -> Encoded:
        """As `encode`, or its last result where fingerprint (None is not shared), rows and length are the same."""
        if fingerprint is None:
            return encode(tokenizer, rows, max_length)
        key = (fingerprint, max_length, rows)
        with self._lock:
            if self._last is None or self._last[0] != key:
                self._last = (key, encode(tokenizer, rows, max_length))
            return self._last[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def fingerprint(tokenizer: Any) -> str | None:
    """Equal strings for two fast tokenizers that give the same ids for every text; None for a slow one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # Padding and truncation are part of the string, are set by each call, and change no id that is not cut off.
    backend.no_padding()
    backend.no_truncation()
    settings = (tokenizer.model_input_names, tokenizer.truncation_side, tokenizer.special_tokens_map)
    return hashlib.sha256(f"{backend.to_str()} {settings}".encode()).hexdigest()


def padded(encoded: Encoded, batch: Sequence[int], fills: dict[str, int], left: bool) -> dict[str, Tensor]:
    """The rows `batch` of `encoded` as tensors (B, T), T the longest row's tokens, padded in front where `left`.

    `fills` says with what each key is padded; 0 where it is not named.
    """
    width = max(len(encoded["input_ids"][index]) for index in batch)
    tensors = {}
    for key, values in encoded.items():
        fill = fills.get(key, 0)
        padding = [[fill] * (width - len(values[index])) for index in batch]
        pairs = [(pad, values[index]) for pad, index in zip(padding, batch, strict=True)]
        tensors[key] = torch.tensor([pad + row if left else row + pad for pad, row in pairs])
    return tensors
