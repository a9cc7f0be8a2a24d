"""Pearson's chi-square test, for what is drawn at random."""

import torch


def p_value(counts, expected):
    """Pearson's chi-square test of counts; what is expected fewer than 5 times is one class."""
    rare = expected < 5
    counts, expected = (
        torch.cat([values[~rare], values[rare].sum()[None]]) if rare.any() else values
        for values in (counts.double(), expected)
    )
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    return torch.special.gammaincc(freedom, statistic / 2).item()
