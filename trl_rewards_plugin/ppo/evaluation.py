"""Responses to held-out prompts, measured: reward, guard metrics, length and KL.

Leaves out: when to evaluate and logging (trainer.py), and the comparison of before and after
(recipes/before_after.py).
"""

from collections.abc import Callable
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from trl_rewards_plugin.metrics.text_metrics import guard_metrics, without_instruction
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import Decoded, Reference, decode_prompts, prompt_limit
from trl_rewards_plugin.ppo.distributed import weighted_means
from trl_rewards_plugin.ppo.monitoring.completions import Table, join_tables
from trl_rewards_plugin.ppo.policy.prompts import Prompt, as_read, prompt_text
from trl_rewards_plugin.ppo.scoring import Scored

Samples = tuple[Decoded, Scored, list[str]]
"""Responses, their scores, and what the model read of their N prompts (of conversations: of the last messages)."""

# columns (N values each), texts (N), token ids (N), ended (N,) -> their rewards
Score = Callable[[dict[str, list[Any]], list[str], list[list[int]], Tensor], Scored]


def sample_held_out(
    policy: nn.Module,
    processing_class: PreTrainedTokenizerBase,
    dataset: Dataset,
    args: Seq2SeqPPOConfig,
    score: Score,
    reference: Reference,
    calls: StaticCalls | None = None,
) -> Samples | None:
    """Decodes this process's share of the prompts, always with the same seed, and scores them as in training.

    Processes draw with seeds of their own: two with one prompt must not give one response twice. All make the same
    calls, since rewards may gather their scale over processes; one without a share makes them for None.

    Plain samples are also compared with the reference. Responses decoded by `eval_generation_kwargs` (beams, greedy
    ...) are not drawn from the policy's distribution, so the mean of their log-ratios is no KL divergence.
    """
    process = PartialState().process_index
    own = range(process, len(dataset), PartialState().num_processes)
    columns = dataset.select(own or [0]).to_dict()
    kwargs: Any = args.eval_generation_kwargs
    decoded = decode_prompts(
        policy,
        processing_class,
        columns["prompt"],
        args,
        seed=args.seed + process,
        reference=reference if kwargs is None else None,
        generation_kwargs=kwargs,
        calls=calls,
    )
    scored = score(columns, decoded.texts, decoded.ids, decoded.ended)
    read = _read(columns["prompt"], processing_class, prompt_limit(policy, args))
    return (decoded, scored, read) if own else None


def held_out_metrics(samples: Samples | None) -> dict[str, float]:
    """The metrics over the samples of all processes; None where a process had no prompt.

    `reward`, `rewards/<name>/mean`, `length` (tokens), `kl` (mean over responses of the summed log-ratio to the
    reference, in nats) where there is one, and `guard/<name>` of `guard_metrics`.
    """
    parts, tables = [], []
    if samples is not None:
        decoded, scored, read = samples
        lengths = decoded.lengths.float()
        means = {"reward": scored.total.mean().item(), **scored.metrics, "length": lengths.mean().item()}
        if decoded.log_ratio is not None:
            means["kl"] = decoded.log_ratio.mean().item()
        parts, tables = [(len(lengths), means)], [{"read": read, "text": list(map(_text, scored.table["completion"]))}]
    metrics = weighted_means(parts)
    table: Table = join_tables(gather_object(tables))
    guards = guard_metrics(table["text"], without_instruction(table["read"]), table["read"])
    return {**metrics, **{f"guard/{name}": value for name, value in guards.items()}}


def _read(prompts: list[Prompt], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[str]:
    """What is left of each prompt, or of a conversation's last message, by the cut to `limit` tokens."""
    whole = [prompt_text(prompt, tokenizer) for prompt in prompts]
    found = []
    for prompt, text, read in zip(prompts, whole, as_read(whole, tokenizer, limit), strict=True):
        last = _text(prompt).strip()  # as many chat templates do
        start = text.rfind(last)
        if isinstance(prompt, str):
            found.append(read)
        elif read == text or start < 0:  # nothing is cut, or the template has other words for the message
            found.append(_text(prompt))
        else:
            found.append(read[start : start + len(last)])
    return found


def _text(prompt: Prompt) -> str:
    """The text itself, or of a conversation its last message."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
