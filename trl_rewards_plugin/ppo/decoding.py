"""Prompts to texts with a policy, and what evaluation measures of held-out ones. Leaves out: scoring the texts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_rewards_plugin.metrics.text_metrics import guard_metrics, without_instruction
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls, static_calls
from trl_rewards_plugin.ppo.architectures.limits import positions
from trl_rewards_plugin.ppo.checks.saved_model import in_evaluation
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.distributed import weighted_means
from trl_rewards_plugin.ppo.input_checks import embedding_rows
from trl_rewards_plugin.ppo.maths.masking import first_eos_mask, has_eos, rows_of_ids
from trl_rewards_plugin.ppo.monitoring.completions import Table, join_tables
from trl_rewards_plugin.ppo.policy.output_head import head_is_whole
from trl_rewards_plugin.ppo.policy.policy import bare_model, score_responses
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts, Prompt, as_read, prompt_text, tokenize_prompts
from trl_rewards_plugin.ppo.policy.sampling import Responses, encode_prompts, sample_responses, sampled_as_scored
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules, token_rules
from trl_rewards_plugin.ppo.scoring import Scored

_logger = logging.getLogger(__name__)

# prompts (B), response_ids (B, T) -> log-probabilities (B, T) under the frozen reference
Reference = Callable[[EncodedPrompts, Tensor], Tensor]


@dataclass(frozen=True)
class Decoded:
    """Texts of N = prompts x samples responses, the samples of one prompt side by side."""

    texts: list[str]  # special tokens left out
    ids: list[list[int]]  # the token ids that were drawn, EOS included where there is one
    ended: Tensor  # (N,) bool, True where the response has its EOS
    log_ratio: Tensor | None  # (N,) log pi(response) - log ref(response), in nats; None without a reference

    @property
    def lengths(self) -> Tensor:
        """(N,) tokens of each response, EOS included."""
        return torch.tensor([len(row) for row in self.ids])


def prompt_limit(model: nn.Module, args: Seq2SeqPPOConfig) -> int:
    """Maximum tokens of a prompt: `max_prompt_length`, or the model's positions where those are fewer (as in BART)."""
    return min(args.max_prompt_length, positions(bare_model(model)).encoder or args.max_prompt_length)


def rules_for(
    model: nn.Module, args: Seq2SeqPPOConfig, processing_class: PreTrainedTokenizerBase | None = None
) -> TokenRules:
    """The token rules of a model under a config; ids that its tokenizer does not have are not sampled."""
    core, suppressed = bare_model(model), tuple(args.suppress_tokens or ())
    if processing_class is not None:  # rows that fill up the output matrix: each would be an empty text
        unknown = set(range(embedding_rows(core)[1])) - set(processing_class.get_vocab().values())
        if unknown:
            _logger.info("%d ids that the tokenizer does not have are never sampled", len(unknown))
        suppressed += tuple(sorted(unknown))
    return token_rules(core, temperature=args.temperature, min_new_tokens=args.min_new_tokens, suppressed=suppressed)


@torch.no_grad()
def decode_prompts(
    model: nn.Module,
    processing_class: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    args: Seq2SeqPPOConfig,
    *,
    greedy: bool = False,
    num_samples: int = 1,
    seed: int = 0,
    reference: Reference | None = None,
    generation_kwargs: dict[str, Any] | None = None,
    progress: Callable[[int], Any] = lambda count: None,
    calls: StaticCalls | None = None,
) -> Decoded:
    """Decodes every prompt `num_samples` times; equal arguments give equal texts.

    Args:
        args: temperature, lengths and batch size come from here.
        seed: of the sampling alone; the global random state is restored.
        reference: to compare plain samples with, such as `trainer.reference_logprobs`.
        generation_kwargs: decode by `model.generate` with these settings instead, whatever they are.
        progress: called after every batch with its number of responses.
    """
    calls = calls or static_calls(args, model)
    rules, limit = rules_for(model, args, processing_class), prompt_limit(model, args)
    core = bare_model(model)
    texts, ids, ended, ratios = [], [], [], []
    total, size = len(prompts) * num_samples, args.per_device_eval_batch_size
    devices = [core.device] if core.device.type == "cuda" else []
    with in_evaluation(core), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in range(0, total, size):
            asked = torch.arange(start, min(start + size, total)) // num_samples  # the prompt of each response
            first, last = int(asked[0]), int(asked[-1])
            some = list(prompts[first : last + 1])
            tokenized, _ = tokenize_prompts(some, processing_class, limit, calls.widths.prompt)
            own, rows = tokenized.to(core.device), (asked - first).to(core.device)
            if generation_kwargs is not None:
                responses = _generated(core, own.select(rows), rules, args.response_length, generation_kwargs)
            else:
                batch = encode_prompts(core, own, calls).select(rows)
                responses = sample_responses(core, batch, rules, args.response_length, greedy=greedy, calls=calls)
                if reference is not None:
                    logprobs = _policy_logprobs(core, batch, responses, rules)
                    log_ratio = logprobs - reference(batch.with_states(None), responses.ids)
                    ratios.append(torch.where(responses.mask, log_ratio, 0.0).sum(1))
            texts += processing_class.batch_decode(responses.ids, skip_special_tokens=True)
            ids += rows_of_ids(responses.ids, responses.mask)
            ended.append(responses.ended)
            progress(len(rows))
    return Decoded(texts, ids, torch.cat(ended).cpu(), torch.cat(ratios).cpu() if ratios else None)


def _policy_logprobs(
    core: PreTrainedModel, prompts: EncodedPrompts, responses: Responses, rules: TokenRules
) -> Tensor:
    """Log-probabilities (B, T) of sampled responses, to be compared with teacher-forced ones of a reference."""
    if sampled_as_scored(core) and responses.logprobs is not None:
        return responses.logprobs
    return score_responses(core, prompts, responses.ids, rules, sliced=head_is_whole(core, rules))[0].logprobs


def _generated(
    core: PreTrainedModel, prompts: EncodedPrompts, rules: TokenRules, length: int, settings: dict[str, Any]
) -> Responses:
    """What `generate` makes of prompts by any settings: without the decoder's start, cut after the first EOS."""
    inputs = {"input_ids": prompts.ids, "attention_mask": prompts.mask.long()}
    output = core.generate(**inputs, **{"max_new_tokens": length, **settings})[:, 1:]
    forced = output.new_tensor(rules.forced_ids)
    if (output[:, : len(forced)] == forced).all():
        output = output[:, len(forced) :]
    mask = first_eos_mask(output, rules.eos_ids)
    return Responses(output, mask, has_eos(output, mask, rules.eos_ids))


Samples = tuple[Decoded, Scored, list[str]]
"""Responses, their scores, and what the model read of their N prompts (of conversations: of the last messages)."""


def sample_held_out(
    policy: nn.Module,
    processing_class: PreTrainedTokenizerBase,
    dataset: Dataset,
    args: Seq2SeqPPOConfig,
    score: Callable[[dict[str, list[Any]], list[str], list[list[int]], Tensor], Scored],
    reference: Reference,
    calls: StaticCalls | None = None,
) -> Samples | None:
    """Decodes this process's share of the prompts, always with the same seed, and scores them as in training.

    Processes draw with seeds of their own: two with one prompt must not give one response twice. All make the same
    calls, since rewards may gather their scale over processes; one without a share makes them for None. `score` takes
    columns (N values each), texts (N), their token ids (N) and `ended` (N,). Only plain samples are compared with the
    reference: those of `eval_generation_kwargs` are not the policy's, so that their mean log-ratio would be no KL.
    """
    process = PartialState().process_index
    own = range(process, len(dataset), PartialState().num_processes)
    columns = dataset.select(own or [0]).to_dict()
    kwargs: Any = args.eval_generation_kwargs
    how: Any = {"seed": args.seed + process, "generation_kwargs": kwargs, "calls": calls}
    compared = reference if kwargs is None else None
    decoded = decode_prompts(policy, processing_class, columns["prompt"], args, reference=compared, **how)
    scored = score(columns, decoded.texts, decoded.ids, decoded.ended)
    read = _read(columns["prompt"], processing_class, prompt_limit(policy, args))
    return (decoded, scored, read) if own else None


def held_out_metrics(samples: Samples | None) -> dict[str, float]:
    """The metrics of `Seq2SeqPPOTrainer.evaluate` over all processes; None where this one had no prompt."""
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
        if not isinstance(prompt, str):
            last = _text(prompt).strip()  # as many chat templates do
            start = text.rfind(last)
            unchanged = read == text or start < 0  # nothing is cut, or the template has other words for the message
            read = _text(prompt) if unchanged else read[start : start + len(last)]
        found.append(read)
    return found


def _text(prompt: Prompt) -> str:
    """The text itself, or of a conversation its last message."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
