"""Alarms: finite numbers of a run that show that training is going wrong. Pure checks, and their monitor.

Every rollout is checked before the update, so that a run that an alarm stops keeps the weights it had.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object

from trl_rewards_plugin.charts.series import own_rows
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.finite import check_rollout, locate_non_finite, most_extreme_row
from trl_rewards_plugin.ppo.maths.masking import masked_row_means, rows_of_ids
from trl_rewards_plugin.ppo.maths.over_optimisation import find_parting
from trl_rewards_plugin.ppo.monitoring.completions import Table
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
    "held_out_reward": "the policy exploits what the reward gets wrong; keep the best checkpoint by "
    "metric_for_best_model='eval_held_out_reward', raise kl_coef, or train for fewer rollouts",
}


class AlarmError(RuntimeError):
    """An alarm that `stop_on` names stopped the run."""


class Alarm(NamedTuple):
    """One thing that is going wrong."""

    name: str  # as in `stop_on`
    found: str  # what was measured, and the limit
    row: int  # the response of this process's rollout, or evaluation, that shows it best


def find_alarms(
    rollout: Rollout,
    stats: Mapping[str, float],
    limits: Seq2SeqPPOConfig,
    gather: Callable[[list[Any]], list[Any]] = lambda parts: parts,
) -> list[Alarm]:
    """The alarms of a rollout, this process's part; `stats` are of all of them, and `gather` joins their lists."""
    mask = rollout.response_mask
    texts = sorted({tuple(row) for row in rows_of_ids(rollout.response_ids, mask)})
    # The log-ratio itself, whatever estimator is logged: one token far below the reference is e^6 nats by k3.
    log_ratio = torch.where(mask, rollout.logprobs - rollout.ref_logprobs, 0.0).sum(1)
    parts = gather([(len(rollout), log_ratio.sum().item(), texts[:2])])  # two texts from each process are enough
    responses = sum(count for count, _, _ in parts)
    kl, entropy = sum(total for _, total, _ in parts) / responses, stats["objective/entropy"]
    unended = 1 - stats["val/num_eos_tokens"] / responses

    alarms = []
    if limits.max_kl is not None and kl > limits.max_kl:
        found = f"the KL to the reference is {kl:.1f} nats per response, above max_kl={limits.max_kl:g}"
        alarms.append(Alarm("kl", found, int(log_ratio.argmax())))
    if limits.min_entropy is not None and entropy < limits.min_entropy:
        found = f"the entropy is {entropy:.3g} nats per token, below min_entropy={limits.min_entropy:g}"
        alarms.append(Alarm("entropy", found, int(masked_row_means(rollout.entropies, mask).argmin())))
    if responses > 1 and len({text for _, _, some in parts for text in some}) == 1:
        alarms.append(Alarm("equal_responses", f"all {responses} responses of the rollout are equal", 0))
    if limits.max_unended_share is not None and unended > limits.max_unended_share:
        found = f"{unended:.0%} of the responses have no EOS within response_length={limits.response_length}"
        found += f", above max_unended_share={limits.max_unended_share:g}"
        alarms.append(Alarm("unended_responses", found, int((~rollout.ended).long().argmax())))
    return alarms


def find_held_out_alarm(log: Sequence[Mapping[str, Any]], table: Table) -> list[Alarm]:
    """The alarm that the evaluations in a log raise by `find_parting`; `table`: the last one's responses, if any."""
    rows = [row for row in own_rows(log) if "eval_held_out_reward" in row]
    series = (torch.tensor([row[key] for row in rows]) for key in ("eval_reward", "eval_held_out_reward"))
    if (parting := find_parting(*series)) is None:
        return []
    since, rise, fall = parting
    found = f"since step {rows[since]['step']} eval_held_out_reward fell by {fall:.3g}, more than its noise, while "
    found += f"eval_reward changed by {rise:+.3g}"
    scores = table.get("held_out_reward", [0.0])
    return [Alarm("held_out_reward", found, scores.index(min(scores)))]


class AlarmMonitor:
    """Watches a run: the main process warns the 1st, 10th, 100th ... time of an alarm, or all stop at the first."""

    def __init__(self, limits: Seq2SeqPPOConfig, decode: Callable[..., Any]):
        self.limits, self.decode = limits, decode  # the tokenizer's
        self.times: Counter[str] = Counter()

    @contextmanager
    def watching(self, rollout: UpdateBatch, stats: Mapping[str, float], step: int) -> Iterator[None]:
        """Checks a rollout before the update that is run within, and locates non-finite numbers of that update.

        NotFiniteError where either has such a number, AlarmError where `stop_on` names an alarm.
        """

        def prompt_of(row: int) -> str:
            ids = rollout.prompt_ids[row][rollout.prompt_mask[row]]
            return quoted(self.decode(ids, skip_special_tokens=True))

        with locate_non_finite(step, prompt_of, lambda: most_extreme_row(rollout, rollout.returns)):
            check_rollout(rollout)
            self.raise_alarms(find_alarms(rollout, stats, self.limits, gather_object), step, prompt_of)
            yield

    def raise_alarms(self, alarms: list[Alarm], step: int, prompt_of: Callable[[int], str]) -> None:
        """Warns, or stops with an AlarmError; `prompt_of` shows the prompt of a row of the rollout."""
        for alarm in alarms:
            place = f"step {step}: {alarm.found}. Seen at the prompt {prompt_of(alarm.row)}"
            message = f"{place}. Likely cause: {CAUSES[alarm.name]}."
            if alarm.name in (self.limits.stop_on or []):
                why = f"Stopped before an update, because stop_on names {alarm.name!r}; the last checkpoint is good"
                raise AlarmError(f"{message} {why}")
            self.times[alarm.name] += 1
            times = self.times[alarm.name]
            if self.limits.process_index == 0 and math.log10(times).is_integer():
                counted = "Times so far: %d. The run continues; stop_on=['%s'] would stop it"
                logger.warning(f"%s {counted}", message, times, alarm.name)
