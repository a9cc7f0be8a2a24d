"""Responses to held-out prompts, measured: reward, guard metrics, length and KL.

Leaves out: when to evaluate, logging and each process's share of the prompts (trainer.py), and the comparison of
before and after (recipes/before_after.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from trl_rewards_plugin.metrics.text_metrics import guard_metrics, without_instruction
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import Reference, decode_prompts
from trl_rewards_plugin.ppo.distributed import weighted_means
from trl_rewards_plugin.ppo.monitoring.completions import Table, join_tables
from trl_rewards_plugin.ppo.policy.prompts import Prompt
from trl_rewards_plugin.ppo.scoring import Scored

Score = Callable[[dict[str, list[Any]], list[str], list[list[int]]], Scored]


@dataclass(frozen=True)
class HeldOutSamples:
    """One process's responses to held-out prompts.

    Attributes:
        scored: totals, the means that are logged, and the table of texts.
        lengths: (N,) tokens of each response, EOS included.
        log_ratio: (N,) log pi(response) - log ref(response), in nats; None where the responses are not plain samples.
    """

    scored: Scored
    lengths: Tensor
    log_ratio: Tensor | None

    def means(self) -> dict[str, float]:
        """The means over the N responses."""
        means = {
            "reward": self.scored.total.mean().item(),
            **self.scored.metrics,
            "length": self.lengths.float().mean().item(),
        }
        return means if self.log_ratio is None else {**means, "kl": self.log_ratio.mean().item()}


def sample_held_out(
    policy: nn.Module,
    processing_class: PreTrainedTokenizerBase,
    columns: dict[str, list[Any]],
    args: Seq2SeqPPOConfig,
    score: Score,
    reference: Reference,
) -> HeldOutSamples:
    """Decodes the prompts in `columns`, always with the same seed, and scores them.

    Plain samples are also compared with the reference. Responses decoded by `eval_generation_kwargs` (beams, greedy
    ...) are not drawn from the policy's distribution, so the mean of their log-ratios is no KL divergence.
    """
    kwargs: Any = args.eval_generation_kwargs
    decoded = decode_prompts(
        policy,
        processing_class,
        columns["prompt"],
        args,
        seed=args.seed,
        reference=reference if kwargs is None else None,
        generation_kwargs=kwargs,
    )
    ids = processing_class(decoded.texts)["input_ids"]
    return HeldOutSamples(score(columns, decoded.texts, ids), decoded.lengths, decoded.log_ratio)


def held_out_metrics(samples: HeldOutSamples | None) -> dict[str, float]:
    """The metrics over the samples of all processes; None where a process had no prompt.

    `reward`, `rewards/<name>/mean`, `length` (tokens), `kl` (mean over responses of the summed log-ratio to the
    reference, in nats) where there is one, and `guard/<name>` of `guard_metrics`.
    """
    own = [] if samples is None else [samples]
    means = weighted_means([(len(part.lengths), part.means()) for part in own])
    table: Table = join_tables(gather_object([part.scored.table for part in own]))
    prompts, texts = map(_text, table["prompt"]), list(map(_text, table["completion"]))
    inputs = list(prompts)
    guards = guard_metrics(texts, without_instruction(inputs), inputs)
    return {**means, **{f"guard/{name}": value for name, value in guards.items()}}


def _text(prompt: Prompt) -> str:
    """The text itself, or of a conversation its last message."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
