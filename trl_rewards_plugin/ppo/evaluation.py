"""Held-out prompts answered and measured: reward, guard metrics, length and KL.

Leaves out: when to evaluate, logging and processes' shares of the prompts (the trainer's), and the comparison of
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
class Answers:
    """One process's held-out prompts, answered.

    Attributes:
        scored: totals, the means that are logged, and the table of texts.
        lengths: (N,) tokens of each answer, EOS included.
        log_ratio: (N,) log pi(answer) - log ref(answer), in nats; None where the answers were not plainly sampled.
    """

    scored: Scored
    lengths: Tensor
    log_ratio: Tensor | None

    def means(self) -> dict[str, float]:
        """The means over the N answers."""
        means = {
            "reward": self.scored.total.mean().item(),
            **self.scored.metrics,
            "length": self.lengths.float().mean().item(),
        }
        return means if self.log_ratio is None else {**means, "kl": self.log_ratio.mean().item()}


def answer_prompts(
    policy: nn.Module,
    processing_class: PreTrainedTokenizerBase,
    columns: dict[str, list[Any]],
    args: Seq2SeqPPOConfig,
    score: Score,
    reference: Reference,
) -> Answers:
    """Decodes the prompts in `columns`, always with the same seed, and scores them.

    Plainly sampled answers are also held against the reference. Answers decoded by `eval_generation_kwargs` (beams,
    greedy ...) are not drawn from the policy's distribution, so the mean of their log-ratios is no KL divergence.
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
    return Answers(score(columns, decoded.texts, ids), decoded.lengths, decoded.log_ratio)


def held_out_metrics(answers: Answers | None) -> dict[str, float]:
    """The metrics of all processes' answers; None where a process had no prompt.

    `reward`, `rewards/<name>/mean`, `length` (tokens), `kl` (mean over responses of the summed log-ratio to the
    reference, in nats) where there is one, and `guard/<name>` of `guard_metrics`.
    """
    means = weighted_means([] if answers is None else [(len(answers.lengths), answers.means())])
    table: Table = join_tables(gather_object([] if answers is None else [answers.scored.table]))
    prompts, texts = map(_text, table["prompt"]), list(map(_text, table["completion"]))
    inputs = list(prompts)
    guards = guard_metrics(texts, without_instruction(inputs), inputs)
    return {**means, **{f"guard/{name}": value for name, value in guards.items()}}


def _text(prompt: Prompt) -> str:
    """The text itself, or of a conversation its last message."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
