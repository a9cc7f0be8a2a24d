"""Targets for mean scores beside an objective: learnt multipliers and the weights they make. Pure maths.

    maximise E[objective] subject to E[score] >= min and E[score] <= max of each reward with a target

Moskovitz et al., "Confronting Reward Model Overoptimization with Constrained RLHF" (arXiv 2310.04373). As there, the
multipliers are bounded and the total is a mixture, so that a target out of reach does not outgrow the KL penalty. Here
they are clipped, not squashed, count scores in standard deviations, and are damped as in Stooke et al., "Responsive
Safety in Reinforcement Learning by PID Lagrangian Methods" (arXiv 2007.03964), since a policy follows them late.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trl_rewards_plugin.rewards.combining.running_statistics import Batch, merged_batches, used_scale

START, LARGEST = 1.0, 10.0
RATE = 20.0  # by how much an integral rises when its target is missed by one standard deviation all through training
DAMPING = 2.0  # by how much a multiplier is above its integral while its target is missed by one standard deviation

Ends = dict[str, dict[str, float]]  # name of a reward with a target -> "min" and, or "max" -> a number


@dataclass(frozen=True)
class Ascent:
    """Where the dual ascent stands, the share of training behind it, and the first batch's deviations, the unit."""

    multipliers: Ends
    integrals: Ends
    stds: dict[str, float] = field(default_factory=dict)
    progress: float = 0.0


def slack(mean: float, end: str, bound: float) -> float:
    """mean - bound for a "min", bound - mean for a "max": below 0 the target is missed by that much."""
    return mean - bound if end == "min" else bound - mean


def ascended(integral: float, slack: float, passed: float) -> tuple[float, float]:
    """Integral and multiplier after a step of dual ascent, by the slack of a batch's mean in standard deviations.

        integral   <- integral - RATE * passed * slack       both within 0 ... LARGEST
        multiplier <- integral - DAMPING * slack

    `passed` is the share of training since the last step, so that short and long runs ascend alike.
    """
    integral = min(max(integral - RATE * passed * slack, 0.0), LARGEST)
    return integral, min(max(integral - DAMPING * slack, 0.0), LARGEST)


def ascent_after(ascent: Ascent, targets: Ends, batches: Sequence[Batch], progress: float) -> Ascent:
    """The ascent after one batch of scores, given as the moments of its part in each process."""
    batch = merged_batches(targets, batches)
    stds = ascent.stds or {name: used_scale(moments)[1] for name, moments in batch.items()}
    # Another training of the same reward begins at 0 again.
    passed = progress - ascent.progress if progress >= ascent.progress else progress
    multipliers, integrals = copy.deepcopy(ascent.multipliers), copy.deepcopy(ascent.integrals)
    for name, moments in batch.items():
        for end, bound in targets[name].items() if moments.count else ():
            left = slack(moments.mean, end, bound) / stds[name]
            integrals[name][end], multipliers[name][end] = ascended(integrals[name][end], left, passed)
    return Ascent(multipliers, integrals, stds, progress)


def mixed(weights: Mapping[str, float], targets: Ends, ascent: Ascent) -> tuple[dict[str, float], dict[str, float]]:
    """The Lagrangian as weights and constants by name: a text's total is the sum of weight * score + constant.

        total = (objective + sum of multiplier * slack(score, end, bound) / std) / (1 + sum of multipliers)

    `weights` are 0 for each reward with a target. A missing score takes its constant with it: else a text that a judge
    cannot score would be one that meets the target.
    """
    whole = 1.0 + sum(sum(ends.values()) for ends in ascent.multipliers.values())
    mixture, constants = {name: weight / whole for name, weight in weights.items()}, dict.fromkeys(targets, 0.0)
    for name, ends in ascent.multipliers.items():
        for end, multiplier in ends.items():
            share = multiplier / ascent.stds[name] / whole
            constants[name] += share * slack(0.0, end, targets[name][end])
            mixture[name] += share if end == "min" else -share
    return mixture, constants
