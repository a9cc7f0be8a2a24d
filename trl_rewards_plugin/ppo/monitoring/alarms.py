"""Alarms: finite numbers of a rollout that show that training is going wrong. Pure checks, and their monitor.

Every rollout is checked before the update, so that a run that an alarm stops keeps the weights it had.
Leaves out: non-finite numbers, which always stop the run (finite.py).
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.finite import check_rollout, locate_non_finite, most_extreme_row
from trl_rewards_plugin.ppo.maths.masking import masked_sum
from trl_rewards_plugin.ppo.policy.prompts import quoted
from trl_rewards_plugin.ppo.rollout import Rollout, UpdateBatch

logger = logging.getLogger(__name__)


# The likely cause of each alarm, and what to change.
CAUSES = {
    "kl": "the policy moves away faster than the penalty holds it; raise kl_coef, lower learning_rate, and read the "
    "completions: a reward that is being hacked looks like this",
    "entropy": "the policy hardly explores any more, so that there is little left to learn from; resume from an "
    "earlier checkpoint with a lower learning_rate or num_ppo_epochs, or a higher kl_coef",
    "equal_responses": "whatever the prompt, the policy gives the one text that the reward likes best; raise kl_coef, "
    "or add a reward that reads the prompt",
    "unended_responses": "response_length is too short for this task, or the reward favours length; raise "
    "response_length, or set missing_eos_penalty",
}


class AlarmError(RuntimeError):
    """An alarm that `stop_on` names stopped the run."""


@dataclass(frozen=True)
class Alarm:
    """One thing that is going wrong.

    Attributes:
        name: as in `stop_on`.
        found: what was measured, and the limit.
        row: the response of this process's rollout that shows it best.
    """

    name: str
    found: str
    row: int


@dataclass(frozen=True)
class RolloutHealth:
    """A rollout on all processes.

    Attributes:
        kl: mean over responses of the summed log-ratio to the reference, in nats.
        entropy: mean over tokens, in nats.
        unended: share of responses without EOS.
        responses: their number.
        all_equal: whether they are one and the same.
    """

    kl: float
    entropy: float
    unended: float
    responses: int
    all_equal: bool


def measure_health(
    rollout: Rollout,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
    gather: Callable[[list[Any]], list[Any]] = lambda parts: parts,
) -> RolloutHealth:
    """The health of a rollout whose parts lie on several processes.

    Args:
        rollout: this process's part.
        reduce: sums a tensor over processes.
        gather: joins lists over processes.
    """
    mask = rollout.response_mask
    kl, tokens, entropy, unended, responses = reduce(
        torch.stack(
            [
                masked_sum(rollout.logprobs - rollout.ref_logprobs, mask),
                mask.sum().float(),
                masked_sum(rollout.entropies, mask),
                (~rollout.ended).sum().float(),
                torch.full((), float(len(rollout)), device=mask.device),
            ]
        )
    ).tolist()
    texts = {tuple(row[real].tolist()) for row, real in zip(rollout.response_ids.cpu(), mask.cpu(), strict=True)}
    different = set(gather(sorted(texts)[:2]))  # two from each process are enough
    return RolloutHealth(kl / responses, entropy / tokens, unended / responses, int(responses), len(different) == 1)


def find_alarms(rollout: Rollout, health: RolloutHealth, limits: Seq2SeqPPOConfig) -> list[Alarm]:
    """The alarms that a rollout raises, with the response that shows each best. A limit that is None raises none."""
    mask = rollout.response_mask
    alarms = []
    if limits.max_kl is not None and health.kl > limits.max_kl:
        found = f"the KL to the reference is {health.kl:.1f} nats per response, above max_kl={limits.max_kl:g}"
        log_ratio = torch.where(mask, rollout.logprobs - rollout.ref_logprobs, 0.0).sum(1)
        alarms.append(Alarm("kl", found, int(log_ratio.argmax())))
    if limits.min_entropy is not None and health.entropy < limits.min_entropy:
        found = f"the entropy is {health.entropy:.3g} nats per token, below min_entropy={limits.min_entropy:g}"
        entropy = torch.where(mask, rollout.entropies, 0.0).sum(1) / mask.sum(1).clamp(min=1)
        alarms.append(Alarm("entropy", found, int(entropy.argmin())))
    if health.all_equal and health.responses > 1:
        alarms.append(Alarm("equal_responses", f"all {health.responses} responses of the rollout are equal", 0))
    if limits.max_unended_share is not None and health.unended > limits.max_unended_share:
        found = (
            f"{health.unended:.0%} of the responses have no EOS within response_length={limits.response_length}, "
            f"above max_unended_share={limits.max_unended_share:g}"
        )
        alarms.append(Alarm("unended_responses", found, int((~rollout.ended).long().argmax())))
    return alarms


class AlarmMonitor:
    """Watches a run: warns at the 1st, 10th, 100th ... rollout that raises an alarm, or stops at the first.

    Args:
        limits: the config.
        decode: the tokenizer's.
        is_main_process: the one that warns; all of them stop.
    """

    def __init__(self, limits: Seq2SeqPPOConfig, decode: Callable[..., Any], *, is_main_process: bool = True):
        self.limits = limits
        self.decode = decode
        self.is_main_process = is_main_process
        self.times: Counter[str] = Counter()

    @contextmanager
    def watching(self, rollout: UpdateBatch, step: int, reduce: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Checks a rollout before the update that is run within, and locates non-finite numbers of that update.

        Args:
            rollout: this process's part.
            step: the running one, counted from 1.
            reduce: sums a tensor over processes.

        Raises:
            NotFiniteError: a number in the rollout or in the update is NaN or infinite.
            AlarmError: an alarm that `stop_on` names.
        """

        def prompt_of(row: int) -> str:
            ids = rollout.prompt_ids[row][rollout.prompt_mask[row]]
            return quoted(self.decode(ids, skip_special_tokens=True))

        with locate_non_finite(step, prompt_of, lambda: most_extreme_row(rollout, rollout.returns)):
            check_rollout(rollout)
            self.raise_alarms(
                find_alarms(rollout, measure_health(rollout, reduce, gather_object), self.limits), step, prompt_of
            )
            yield

    def raise_alarms(self, alarms: list[Alarm], step: int, prompt_of: Callable[[int], str]) -> None:
        """Warns, or stops.

        Args:
            prompt_of: row of the rollout -> its prompt, shown.

        Raises:
            AlarmError: an alarm that `stop_on` names.
        """
        stop_on = self.limits.stop_on or []
        for alarm in alarms:
            place = f"step {step}: {alarm.found}. Seen at the prompt {prompt_of(alarm.row)}"
            if alarm.name in stop_on:
                raise AlarmError(
                    f"{place}. Likely cause: {CAUSES[alarm.name]}. Stopped before the update, because stop_on names "
                    f"{alarm.name!r}; the last checkpoint is good"
                )
            self.times[alarm.name] += 1
            times = self.times[alarm.name]
            if self.is_main_process and math.log10(times).is_integer():
                logger.warning(
                    "%s. Likely cause: %s. Rollouts so far that raised it: %d. The run continues; stop_on=['%s'] "
                    "would stop it",
                    place,
                    CAUSES[alarm.name],
                    times,
                    alarm.name,
                )
