"""Draws one token a row from next-token probabilities.

`torch.multinomial` draws one exponential number a token of the vocabulary, on a CPU one after the other: a third of a
step of 32 rows. Here two uniform numbers a row do: one picks a block of tokens, one a token of the block. A GPU draws
as many as there are tokens at once, but `torch.multinomial` waits there for all that is under way, to look at the
probabilities first; here it does not.
Leaves out: which tokens are allowed (token_rules.py).
"""

import torch
from torch import Tensor

_BLOCK = 128


def draw_tokens(probabilities: Tensor) -> Tensor:
    """One token a row, from torch's global random state.

    Args:
        probabilities: (M, V), 0 where a token is not allowed; of a row of NaN any token is drawn.

    Returns:
        (M, 1) token ids.
    """
    return _by_blocks(probabilities) if probabilities.device.type == "cpu" else _by_race(probabilities)


def _by_race(probabilities: Tensor) -> Tensor:
    """One token a row (M, 1): of times with rate `probabilities` (M, V) each token's is the least with that chance."""
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1, keepdim=True)


def _by_blocks(probabilities: Tensor) -> Tensor:
    """One token a row (M, 1), by the inverse of the distribution function: first the block, then the token."""
    vocabulary = probabilities.shape[1]
    whole = vocabulary // _BLOCK * _BLOCK  # the last block may be shorter
    sums = probabilities[:, :whole].unflatten(1, (-1, _BLOCK)).sum(2, dtype=torch.float64)
    rest = probabilities[:, whole:].sum(1, keepdim=True, dtype=torch.float64)
    first = _inverse_cdf(torch.cat([sums, rest], dim=1)) * _BLOCK
    columns = first + torch.arange(_BLOCK)  # (M, block)
    weights = probabilities.gather(1, columns.clamp(max=vocabulary - 1)).double()
    tokens = first + _inverse_cdf(weights.where(columns < vocabulary, 0.0))
    return tokens.clamp(max=vocabulary - 1)  # of NaN the inverse lies behind the end


def _inverse_cdf(weights: Tensor) -> Tensor:
    """One column a row (M, 1), with a chance in proportion to its weight (M, N), float64; never one of weight 0."""
    cdf = weights.cumsum(1)
    # A uniform number is at most 1 - 2^-53, so the product stays below the total in float64, whatever the total.
    uniform = torch.rand(len(weights), 1, dtype=torch.float64)
    return torch.searchsorted(cdf, uniform * cdf[:, -1:], right=True)
