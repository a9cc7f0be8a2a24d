"""Which response tokens are real, and means and whitening over them alone. Pure functions."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]  # sums a tensor over processes


def alone(sums: Tensor) -> Tensor:
    """`Reduce` of a process that works alone."""
    return sums


@lru_cache(maxsize=256)
def known_ids(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Token ids that are known beforehand (N,), int64: made once per device and kept, so not to be written to.

    A tensor made from Python numbers is copied to a GPU, and the copy waits for all work that is queued there.
    """
    return torch.tensor(ids, dtype=torch.long, device=device)


def first_eos_mask(response_ids: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    """The `response_mask` (B, T) of token ids (B, T): True up to and including the first EOS, all True without one.

    The decoder's start token must already be gone: BART's is its EOS and T5's its pad, so position cannot tell it.
    """
    is_eos = torch.isin(response_ids, known_ids(tuple(eos_token_ids), response_ids.device)).long()
    return is_eos.cumsum(dim=1) - is_eos == 0  # none before


def has_eos(response_ids: Tensor, response_mask: Tensor, eos_token_ids: Sequence[int]) -> Tensor:
    """(B,) bool, True where a response (B, T) has one of the EOS ids among its real tokens."""
    is_eos = torch.isin(response_ids, known_ids(tuple(eos_token_ids), response_ids.device))
    return (is_eos & response_mask).any(dim=1)


def rows_of_ids(response_ids: Tensor, response_mask: Tensor) -> list[list[int]]:
    """The real tokens of each response (B, T) as B lists, EOS included."""
    return [row[real].tolist() for row, real in zip(response_ids.cpu(), response_mask.cpu(), strict=True)]


def check_same_shape(**tensors: Tensor) -> None:
    """Raises ValueError with every name and shape unless all the tensors have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("shapes must agree: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of `values` (B, T) where `mask` (B, T) is True, as a 0-d tensor; what is masked may hold anything."""
    check_same_shape(values=values, mask=mask)
    return torch.where(mask, values, torch.zeros_like(values)).sum()


def masked_row_means(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean of each row of `values` (B, T) where `mask` (B, T) is True; 0 where it is nowhere."""
    return torch.where(mask, values, torch.zeros_like(values)).sum(1) / mask.sum(1).clamp(min=1)


def as_precise(values: Tensor, mask: Tensor) -> Tensor:
    """(B, T) in float64 where the device has it, 0 where `mask` (B, T) is False."""
    precise = torch.float32 if values.device.type == "mps" else torch.float64
    return torch.where(mask, values, torch.zeros_like(values)).to(precise)


def masked_moments(values: Tensor, mask: Tensor, reduce: Reduce = alone) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations from it, 0-d each, of values (B, T) where the mask (B, T) is True.

    Over all processes, in two passes: a mean of squares less the square of the mean loses everything where values lie
    far from 0.
    """
    numbers = as_precise(values, mask)
    count, total = reduce(torch.stack([mask.sum().to(numbers.dtype), numbers.sum()]))
    mean = total / count.clamp(min=1)
    squares = reduce(torch.where(mask, (numbers - mean) ** 2, torch.zeros_like(numbers)).sum())
    return count, mean, squares


def masked_whiten(
    values: Tensor, mask: Tensor, *, shift_mean: bool = True, reduce: Reduce = alone, epsilon: float = 1e-8
) -> Tensor:
    """Scales values (B, T) to variance 1, and shifts to mean 0, over the tokens of all processes that the mask names.

        whitened = (values - mean) / sqrt(variance + epsilon)   [+ mean, if not shift_mean]

    The variance is the unbiased one (n - 1), as in TRL. Rewards are whitened without the shift and advantages
    with it (arXiv 2403.17031). Sums are taken in float64 where the device has it, so that their order does not matter.
    0 where the mask is False; with fewer than two tokens there is no variance and only the shift.
    """
    numbers = as_precise(values, mask)
    count, mean, squares = masked_moments(values, mask, reduce)
    variance = torch.where(count > 1, squares / (count - 1).clamp(min=1), 1.0)
    whitened = (numbers - mean) * torch.rsqrt(variance + epsilon)
    if not shift_mean:
        whitened = whitened + mean
    return torch.where(mask, whitened, torch.zeros_like(whitened)).to(values.dtype)
