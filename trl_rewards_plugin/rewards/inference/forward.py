"""BatchedForward: token ids -> a classifier's raw outputs, in batches that fit into memory.

Leaves out: loading (shared_classifier.py), and how texts become token ids (encoding.py).
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import is_out_of_memory
from trl_rewards_plugin.rewards.inference import devices
from trl_rewards_plugin.rewards.inference.encoding import Encoded, padded

logger = logging.getLogger(__name__)

TOKEN_BUDGET = 16_384
"""Padded tokens in one forward pass on an accelerator: 32 texts of 512 tokens, or 512 texts of 32."""

CPU_TOKEN_BUDGET = 768
"""The same on a CPU: enough to use it fully, few enough that texts of like length are alone with each other."""


class BatchedForward:
    """Runs a classifier over encoded texts; where a batch is too large for the memory, halves it and remembers."""

    def __init__(self, model_id: str, dtype: torch.dtype | None):
        self.model_id = model_id
        self.dtype = dtype
        # Padded tokens in a forward pass; None until the memory was too small for more.
        self.token_budget: int | None = None

    def logits(self, model: Any, tokenizer: Any, encoded: Encoded, batch_size: int | None) -> Tensor:
        """Raw outputs for M encoded texts: (M, L) float32 on the CPU, L labels.

        Where a single text is too large for the memory, torch.OutOfMemoryError (on a CPU a RuntimeError) stays.
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
        if self.token_budget is not None:
            return self.token_budget
        if batch_size is not None:
            return None
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
    if not getattr(config, "is_encoder_decoder", False):
        return [list(range(len(rows)))]
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.count(config.eos_token_id), []).append(index)
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
        if batches:
            size = len(batches[-1]) + 1
            within = token_budget is None or size * longest <= token_budget
            if within and (batch_size is None or size <= batch_size):
                batches[-1].append(index)
                continue
        batches.append([index])
        longest = max(lengths[index], 1)
    return batches
