"""What a KL could buy: reward against KL of two policies made of the starting model's own samples. Pure."""

import math

import numpy as np


def tilted(rewards: np.ndarray, beta: float) -> list[float]:
    """KL in nats and reward of the policy proportional to start x exp(reward / beta), the best of its KL.

    By self-normalised importance sampling from n samples r_1 ... r_n of each prompt, `rewards` (B, n), the means of

        w_i = exp(r_i / beta) / sum_j exp(r_j / beta)      KL = log n + sum_i w_i log w_i      reward = sum_i w_i r_i

    No KL above log n can be seen: towards it the weights rest on one sample, and both numbers are too low.
    """
    scaled = rewards / beta
    log_weights = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    weights = np.exp(log_weights)
    kl = math.log(rewards.shape[1]) + (weights * log_weights).sum(1)
    return [float(kl.mean()), float((weights * rewards).sum(1).mean())]


def best_of_count(rewards: np.ndarray, count: int) -> list[float]:
    """KL in nats and reward of the best of `count` samples, over all choices among the n of each prompt, (B, n).

    reward = sum_j r_(j) C(j - 1, count - 1) / C(n, count), sorted; KL = log count - (count - 1) / count, exact where
    no two responses have equal rewards (arXiv 2406.00832), too high where some have (arXiv 2401.01879).
    """
    choices = np.array([math.comb(rank, count - 1) for rank in range(rewards.shape[1])])
    means = np.sort(rewards, axis=1) @ (choices / choices.sum())
    return [math.log(count) - (count - 1) / count, float(means.mean())]


def reward_at_kl(rewards: np.ndarray) -> dict[str, list[list[float]]]:
    """`{"tilted": [[KL, reward] ...], "best_of_n": ...}` of (B, n): beta from 16 to 1/16 standard deviations within a
    prompt, and 1, 2, 4 ... n; without prompts that have a NaN. Empty where no rewards differ."""
    scored = rewards[~np.isnan(rewards).any(axis=1)]
    spread = float(scored.std(axis=1).mean()) if len(scored) else 0.0
    if spread <= 1e-12:
        return {}
    best = [best_of_count(scored, 2**power) for power in range(scored.shape[1].bit_length())]
    return {"tilted": [tilted(scored, spread * 2.0 ** (4 - half / 2)) for half in range(17)], "best_of_n": best}
