"""What a distribution over the vocabulary gives: log-probability of a token, entropy, exact KL, and a draw.

Of given tokens one (B, T, V) tensor is kept for the backward pass, and with an anchor a second, not three and more.
"""

import functools
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from trl_rewards_plugin.ppo.maths.masking import check_same_shape

_LOWEST = torch.finfo(torch.float32).min / 2


class TokenScores(NamedTuple):
    """Scores (B, T) of given tokens under a distribution, in nats."""

    logprobs: Tensor  # of each token
    entropies: Tensor  # of the distribution of each token
    kl: Tensor | None = None  # KL(distribution || anchor's); None without an anchor


def token_scores(log_weights: Tensor, token_ids: Tensor, anchor_weights: Tensor | None = None) -> TokenScores:
    """Scores tokens under softmax(log_weights).

        logprob = log_weight[token] - logsumexp(log_weights)
        entropy = logsumexp(log_weights) - sum softmax(log_weights) * log_weights
        kl      = sum softmax(log_weights) * (log_weights - anchor_weights) less the difference of their logsumexp
    A token that is not allowed (the padding behind an EOS) gets a large negative finite log-probability without
    gradient, because -inf times a mask of 0 would be NaN. Log-weights, and without gradient an anchor's, are float32
    (B, T, V), -inf for the same tokens.
    """
    check_same_shape(log_weights=log_weights[..., 0], token_ids=token_ids)
    return TokenScores(*cast(Any, _TokenScores).apply(log_weights, token_ids, anchor_weights))


def draw_tokens(probabilities: Tensor) -> Tensor:
    """One token per row, from torch's global random state; `torch.multinomial` would wait for a GPU to check them.

    Of independent exponential times with rates p_1 ... p_V the i-th is the shortest with probability p_i; the time of
    rate p is a unit-rate time divided by p. (M, V) -> (M, 1) token ids; of a row of NaN any token is drawn.
    """
    # -log of a uniform number: `exponential_` takes a CPU three times as long. In float64, as float32 has no times
    # between 0 and 6e-8, without which rare tokens are drawn too seldom. At 0 the time would be infinite, and where
    # all but one token are forbidden, a forbidden one be drawn.
    uniform = torch.rand_like(probabilities, dtype=torch.float64)
    times = uniform.clamp_(min=2**-54).log_().neg_().float()  # half of the step of torch.rand in float64
    return (probabilities / times).argmax(-1, keepdim=True)


def entropies(logprobs: Tensor, probabilities: Tensor) -> Tensor:
    """Entropies (...) in nats of distributions (..., V), given both ways, where it may be 0."""
    return -_mean_weight(probabilities, logprobs).clamp(max=0)


def _mean_weight(probabilities: Tensor, log_weights: Tensor) -> Tensor:
    """sum probability * log_weight over the vocabulary: (..., V) twice -> (...)."""
    finite = log_weights.clamp(min=_LOWEST)  # 0 * -inf would be NaN
    with torch.autocast(probabilities.device.type, enabled=False):  # it would compute the product in lower precision
        return cast(Tensor, torch.linalg.vecdot(probabilities, finite))


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_weights: Tensor, token_ids: Tensor, anchor_weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        probabilities = log_weights.softmax(-1)
        # At the likeliest token log(probability) loses nothing: it is at least 1 / V.
        log_total = log_weights.amax(-1) - probabilities.amax(-1).log()
        chosen = log_weights.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
        entropies = (log_total - _mean_weight(probabilities, log_weights)).clamp(min=0)  # rounding can fall below
        kl = excess = mean_excess = None  # the excess is the log-ratio, but for a constant that its mean takes off
        if anchor_weights is not None:
            excess = (log_weights - anchor_weights).masked_fill_(log_weights == -torch.inf, 0)  # not -inf less -inf
            mean_excess = _mean_weight(probabilities, excess)
            kl = (mean_excess - log_total + anchor_weights.logsumexp(-1)).clamp(min=0)
        ctx.save_for_backward(probabilities, token_ids, chosen == -torch.inf, entropies, excess, mean_excess)
        return (chosen - log_total).clamp(min=_LOWEST), entropies, kl

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:
        probabilities, token_ids, forbidden, entropies, excess, mean_excess = ctx.saved_tensors
        of_logprobs, of_entropies, of_kl = gradients
        parts = []
        if of_kl is not None:  # d kl / d log_weight = probability * (log-ratio - kl)
            parts.append((excess - mean_excess.unsqueeze(-1)).mul_(probabilities).mul_(of_kl.unsqueeze(-1)))
        if of_entropies is not None:  # d entropy / d log_weight = -probability * (log probability + entropy)
            own = torch.special.xlogy(probabilities, probabilities).addcmul_(probabilities, entropies.unsqueeze(-1))
            parts.append(own.mul_(-of_entropies.unsqueeze(-1)))
        if of_logprobs is not None:  # d logprob / d log_weight = 1[token] - probability
            gradient = of_logprobs.masked_fill(forbidden, 0).unsqueeze(-1)
            parts.append((probabilities * -gradient).scatter_add_(-1, token_ids.unsqueeze(-1), gradient))
        return functools.reduce(Tensor.add_, parts), None, None
