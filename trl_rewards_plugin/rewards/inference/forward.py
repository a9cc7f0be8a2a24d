"""Texts -> token ids, made once where several classifiers read them alike -> raw outputs, in batches that fit memory.

Leaves out: loading (shared_classifier.py).
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import is_out_of_memory
from trl_rewards_plugin.rewards.inference import devices
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock
from trl_rewards_plugin.rewards.texts import valid_unicode

logger = logging.getLogger(__name__)

WINDOW_TEXTS = 4_096
WINDOW_CHARACTERS = 4_000_000
# Padded tokens in one forward pass: on an accelerator 32 texts of 512 tokens, or 512 texts of 32; on a CPU enough to
# use it fully, few enough that texts of like length are alone with each other.
TOKEN_BUDGET = 16_384
CPU_TOKEN_BUDGET = 768

Row = tuple[str, str | None]  # a text, and the prompt that it is paired with
Encoded = dict[str, list[list[int]]]  # what a tokenizer gives for N texts, by `input_ids`, `attention_mask` ...


def encode(tokenizer: Any, rows: Sequence[Row], max_length: int) -> Encoded:
    """Token ids of N texts or (prompt, text) pairs, cut to `max_length`; a row without any gets one special token."""
    columns = [[valid_unicode(text) for text, _ in rows]]
    if rows[0][1] is not None:
        columns.insert(0, [valid_unicode(prompt or "") for _, prompt in rows])
    encoded = tokenizer(*columns, truncation=True, max_length=max_length)
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    stand_in = next(token for token in known if token is not None)
    empty = [index for index, ids in enumerate(encoded["input_ids"]) if not ids]
    for key, values in encoded.items():
        for index in empty:
            values[index] = [{"input_ids": stand_in, "attention_mask": 1}.get(key, 0)]
    return dict(encoded)


def unique_rows(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The M distinct rows in order of first appearance, and for each of the N rows its place among them."""
    places: dict[Row, int] = {}
    index = [places.setdefault(row, len(places)) for row in rows]
    return list(places), index


def windows(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """`rows` in slices of at most 4,096 texts and 4 million characters, whose token ids alone are in memory."""
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
    """The rows `batch` as tensors (B, T), T the longest's tokens, padded by `fills`, else 0, in front where `left`."""
    width = max(len(encoded["input_ids"][index]) for index in batch)
    tensors = {}
    for key, values in encoded.items():
        rows = [(values[index], [fills.get(key, 0)] * (width - len(values[index]))) for index in batch]
        tensors[key] = torch.tensor([padding + row if left else row + padding for row, padding in rows])
    return tensors


class BatchedForward:
    """Runs a classifier over encoded texts; where a batch is too large for the memory, halves it and remembers."""

    def __init__(self, model_id: str, dtype: torch.dtype | None):
        self.model_id, self.dtype = model_id, dtype
        self.token_budget: int | None = None  # padded tokens in a forward pass, once the memory was too small for more

    def logits(self, model: Any, tokenizer: Any, encoded: Encoded, batch_size: int | None) -> Tensor:
        """Raw outputs for M encoded texts: (M, L) float32 on the CPU, L labels.

        torch.OutOfMemoryError (on a CPU a RuntimeError) if a single text is too large for the memory.
        """
        lengths = [len(ids) for ids in encoded["input_ids"]]
        fills = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        # Behind the text, so that a neighbour's length never moves its positions, but for XLNet, which reads the end.
        left = getattr(model.config, "summary_type", None) == "last" and tokenizer.padding_side == "left"
        done: list[int] = []
        parts = []
        for waiting in _together(model.config, encoded["input_ids"]):
            while waiting:
                budget = self._budget(model.device, batch_size)
                for places in token_batches([lengths[index] for index in waiting], batch_size, budget):
                    batch = [waiting[place] for place in places]
                    outputs = self._try(model, padded(encoded, batch, fills, left))
                    if outputs is None:
                        devices.free_memory(model.device)
                        self.token_budget = max(len(batch) * lengths[batch[0]] // 2, 1)
                        found = f"out of memory on {model.device} at {len(batch)} texts of {lengths[batch[0]]} tokens"
                        step = f"batches of at most {self.token_budget} padded tokens from now on"
                        logger.warning(f"{self.model_id}: {found}; {step}")
                        break
                    parts.append(outputs)
                    done.extend(batch)
                finished = set(done)
                waiting = [index for index in waiting if index not in finished]
        # One copy to the CPU for all batches, so that none waits for the results of the one before. New tensors from
        # here on: those made in inference mode could not enter a caller's loss.
        batched = torch.cat(parts).float().cpu()
        logits = torch.empty_like(batched)
        logits[torch.tensor(done)] = batched
        return logits

    def _budget(self, device: torch.device, batch_size: int | None) -> int | None:
        if self.token_budget is not None or batch_size is not None:
            return self.token_budget
        return CPU_TOKEN_BUDGET if device.type == "cpu" else TOKEN_BUDGET

    def _try(self, model: Any, inputs: dict[str, Tensor]) -> Tensor | None:
        """The model's outputs (B, L) on its device; None where the memory was too small and fewer texts may fit."""
        try:
            with torch.inference_mode(), devices.precision(model.device, self.dtype):
                on_cuda = model.device.type == "cuda"
                if on_cuda:  # through pinned memory the copy waits for no kernel
                    inputs = {key: value.pin_memory() for key, value in inputs.items()}
                there = {key: value.to(model.device, non_blocking=on_cuda) for key, value in inputs.items()}
                logits: Tensor = model(**there).logits
                return logits
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            texts, tokens = inputs["input_ids"].shape
            if texts == 1:
                step = "lower max_length, give dtype='bfloat16', offload= or another device"
                where = f"{model.device} beside one text of {tokens} tokens"
                error.add_note(f"{self.model_id} does not fit on {where}: {step}")
                raise
        # Out here the error's traceback, and the tensors that it holds, are gone.
        return None


def _together(config: Any, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The indices of rows that may share a batch: all of them, but for encoder-decoder classifiers (BART, T5).

    These read a row's last EOS and refuse a batch in whose rows it comes in different numbers; a text may hold it.
    """
    counts_matter = getattr(config, "is_encoder_decoder", False)
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.count(config.eos_token_id) if counts_matter else 0, []).append(index)
    return list(groups.values())


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
        size = len(batches[-1]) + 1 if batches else 0
        within = token_budget is None or size * longest <= token_budget
        if batches and within and (batch_size is None or size <= batch_size):
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = max(lengths[index], 1)
    return batches
