"""What a distribution over the vocabulary gives: log-probability and entropy of a token, and a draw.

Of given tokens one (B, T, V) tensor, the softmax, is kept for the backward pass; separate ones would keep three.
Leaves out: where the log-weights come from (output_head.py, token_rules.py).
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import check_same_shape

_LOWEST = torch.finfo(torch.float32).min / 2


class TokenScores(NamedTuple):
    """Scores of given tokens under a distribution.

    Attributes:
        logprobs: (B, T) of each token, in nats.
        entropies: (B, T) of the distribution of each token, in nats; without gradient.
    """

    logprobs: Tensor
    entropies: Tensor


def token_scores(log_weights: Tensor, token_ids: Tensor) -> TokenScores:
    """Scores tokens under softmax(log_weights).

        logprob = log_weight[token] - logsumexp(log_weights)
        entropy = logsumexp(log_weights) - sum softmax(log_weights) * log_weights
    A token that is not allowed (the padding behind an EOS) gets a large negative finite log-probability without
    gradient, because -inf times a mask of 0 would be NaN.

    Args:
        log_weights: (B, T, V) float32, -inf where a token is not allowed.
        token_ids: (B, T).
    """
    check_same_shape(log_weights=log_weights[..., 0], token_ids=token_ids)
    return TokenScores(*cast(Any, _TokenScores).apply(log_weights, token_ids))


def draw_tokens(probabilities: Tensor) -> Tensor:
    """One token per row, from torch's global random state; `torch.multinomial` would wait for a GPU to check them.

    Of independent exponential times with rates p_1 ... p_V the i-th is the shortest with probability p_i; the time of
    rate p is a unit-rate time divided by p.

    Args:
        probabilities: (M, V), 0 where a token is not allowed; of a row of NaN any token is drawn.

    Returns:
        (M, 1) token ids.
    """
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1, keepdim=True)


def entropies(logprobs: Tensor, probabilities: Tensor) -> Tensor:
    """Entropies (...) in nats of distributions (..., V), given both ways, where it may be 0."""
    return -_mean_weight(probabilities, logprobs).clamp(max=0)


def _mean_weight(probabilities: Tensor, log_weights: Tensor) -> Tensor:
    """sum probability * log_weight over the vocabulary: (..., V) twice -> (...)."""
    finite = log_weights.clamp(min=_LOWEST)  # 0 * -inf would be NaN
    with torch.autocast(probabilities.device.type, enabled=False):  # it would compute the product in lower precision
        mean: Tensor = torch.linalg.vecdot(probabilities, finite)
    return mean


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_weights: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = log_weights.softmax(-1)
        # At the likeliest token log(probability) loses nothing: it is at least 1 / V.
        log_total = log_weights.amax(-1) - probabilities.amax(-1).log()
        chosen = log_weights.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
        entropies = (log_total - _mean_weight(probabilities, log_weights)).clamp(min=0)  # rounding can fall below
        ctx.save_for_backward(probabilities, token_ids, chosen == -torch.inf)
        ctx.mark_non_differentiable(entropies)
        return (chosen - log_total).clamp(min=_LOWEST), entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        probabilities, token_ids, forbidden = ctx.saved_tensors
        gradient = gradients[0].masked_fill(forbidden, 0).unsqueeze(-1)
        # d logprob / d log_weight = 1[token] - probability
        return (probabilities * -gradient).scatter_add_(-1, token_ids.unsqueeze(-1), gradient), None
