"""Objectives that rank the `num_generations` responses to a prompt: those they mark, and the loss of a pair."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trl_rewards_plugin.ppo.maths.masking import check_same_shape


def mark_best(totals: Tensor, num_generations: int) -> Tensor:
    """(B,) 1 at each prompt's largest total (B,), responses to one prompt side by side, else 0.

    Of equal totals it is the first, which among independent samples is a random one.
    """
    groups = totals.view(-1, num_generations)
    return torch.zeros_like(groups).scatter_(1, groups.argmax(1, keepdim=True), 1.0).flatten()


def mark_best_and_worst(totals: Tensor, num_generations: int) -> Tensor:
    """(B,) 1 at the best response to each prompt, -1 at the worst, always another one, else 0; as `mark_best`."""
    groups = totals.view(-1, num_generations)
    worst = num_generations - 1 - groups.flip(1).argmin(1, keepdim=True)  # of equal ones the last
    marks = mark_best(totals, num_generations).view_as(groups)
    return marks.scatter_(1, worst, -1.0).flatten()


def preference_loss(margins: Tensor, gaps: Tensor, labels: str) -> Tensor:
    """DPO's loss of each pair (P,), in nats; gaps (P,) are the score of the best less that of the worst.

        loss = -p log sigmoid(margin) - (1 - p) log sigmoid(-margin),    margin = beta (h(best) - h(worst)),
        h = log policy(response) - log reference(response)
    With `labels="hard"` p is 1, and a pair with equal scores teaches nothing: the loss of Rafailov et al., "Direct
    Preference Optimization" (arXiv 2305.18290), equation 7, and TRL's. It is lower the larger the margin, without
    bound: on samples of the policy itself it converges to the best response alone, and only early stopping prevents
    that. With `labels="bradley_terry"` p = sigmoid(gap), the probability that an annotator of the Bradley-Terry model
    (equation 1 there) with these scores as rewards prefers the best: the expectation of the hard loss over such
    labels, and TRL's with label_smoothing = 1 - p. It is minimal where every margin equals its gap, which is so at
    policy proportional to reference exp(score / beta), whichever pairs are drawn.
    """
    check_same_shape(margins=margins, gaps=gaps)
    if labels == "hard":
        return torch.where(gaps > 0, -logsigmoid(margins), torch.zeros_like(margins))
    preferred = torch.sigmoid(gaps)
    return -preferred * logsigmoid(margins) - (1 - preferred) * logsigmoid(-margins)
