"""A batch of prompts as the decoder needs them: token ids, mask and the encoder's states."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class EncodedPrompts:
    """B prompts, padded on the right."""

    ids: Tensor  # (B, S) prompt token ids
    mask: Tensor  # (B, S) bool, True on real tokens
    states: Tensor | None = None  # (B, S, H) the encoder's last hidden states, None before it has run

    def __len__(self) -> int:
        return len(self.ids)

    def with_states(self, states: Tensor | None) -> "EncodedPrompts":
        """The same prompts with these encoder states (B, S, H)."""
        return replace(self, states=states)

    def repeat(self, copies: int) -> "EncodedPrompts":
        """Each prompt `copies` times, side by side."""
        return self._each(lambda tensor: tensor.repeat_interleave(copies, 0))

    def select(self, rows: Tensor | slice) -> "EncodedPrompts":
        """Some of the rows: indices (B'), a bool mask (B) or a slice."""
        return self._each(lambda tensor: tensor[rows])

    def padded(self, width: int, pad_id: int) -> "EncodedPrompts":
        """The same prompts with that many columns, before the encoder has run."""
        more = (0, width - self.ids.shape[1])
        return EncodedPrompts(pad(self.ids, more, value=pad_id), pad(self.mask, more, value=False))

    def to(self, device: torch.device) -> "EncodedPrompts":
        """The same prompts on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, work: Callable[[Tensor], Tensor]) -> "EncodedPrompts":
        states = None if self.states is None else work(self.states)
        return EncodedPrompts(work(self.ids), work(self.mask), states)
