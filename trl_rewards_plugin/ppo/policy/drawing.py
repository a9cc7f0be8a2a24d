"""Draws one token per row from next-token probabilities.

As `torch.multinomial`, which reads the probabilities first to check them, for which the host would wait on a GPU.
Leaves out: which tokens are allowed (token_rules.py).
"""

import torch
from torch import Tensor


def draw_tokens(probabilities: Tensor) -> Tensor:
    """One token per row, from torch's global random state.

    Of independent exponential times with rates p_1 ... p_V the i-th is the shortest with probability p_i; the time of
    rate p is a unit-rate time divided by p.

    Args:
        probabilities: (M, V), 0 where a token is not allowed; of a row of NaN any token is drawn.

    Returns:
        (M, 1) token ids.
    """
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1, keepdim=True)
