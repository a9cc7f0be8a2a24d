"""Rows of a dataset to encoder inputs, and reference texts to responses, all padded on the right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from sys import maxsize
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.acceleration.fixed_shapes import round_up
from trl_rewards_plugin.ppo.maths.masking import first_eos_mask
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.text import one_line

Prompt = str | list[dict[str, str]]


@dataclass(frozen=True)
class EncodedPrompts:
    """B prompts, padded on the right."""

    ids: Tensor  # (B, S) prompt token ids
    mask: Tensor  # (B, S) bool, True on real tokens
    states: Tensor | None = None  # (B, S, H) the encoder's last hidden states, None before it has run

    def __len__(self) -> int:
        return len(self.ids)

    def with_states(self, states: Tensor | None) -> "EncodedPrompts":
        return replace(self, states=states)

    def repeat(self, copies: int) -> "EncodedPrompts":
        """Each prompt `copies` times, side by side."""
        return self._each(lambda tensor: tensor.repeat_interleave(copies, 0))

    def select(self, rows: Tensor | slice) -> "EncodedPrompts":
        """Some of the rows: indices (B'), a bool mask (B) or a slice."""
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> "EncodedPrompts":
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, work: Callable[[Tensor], Tensor]) -> "EncodedPrompts":
        states = None if self.states is None else work(self.states)
        return EncodedPrompts(work(self.ids), work(self.mask), states)


def prompt_text(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a prompt; a conversation goes through the tokenizer's chat template."""
    if isinstance(prompt, str):
        return prompt
    return str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))


def prompt_lines(prompt: Prompt) -> str:
    """A prompt for people: a conversation as one "role: content" a line."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def quoted(prompt: Prompt) -> str:
    """The start of a prompt in quotes and on one line, for messages."""
    return repr(one_line(prompt_lines(prompt), 124))


def tokenize_prompts(
    prompts: list[Prompt], tokenizer: PreTrainedTokenizerBase, max_length: int, multiple: int = 1
) -> tuple[EncodedPrompts, int]:
    """Prompts, cut to `max_length` before their EOS, and how many of them were cut.

    Padded on the right to the next `multiple`, whatever the tokenizer's side is: rollouts are joined on the right.
    """
    texts = [prompt_text(prompt, tokenizer) for prompt in prompts]
    rows = tokenizer(texts, verbose=False)["input_ids"]
    cut = [number for number, ids in enumerate(rows) if len(ids) > max_length]
    if cut:  # only these again
        shorter = tokenizer([texts[number] for number in cut], truncation=True, max_length=max_length)["input_ids"]
        for number, ids in zip(cut, shorter, strict=True):
            rows[number] = ids
    tensors = [torch.tensor(ids, dtype=torch.long) for ids in rows]
    return padded_rows(tensors, int(tokenizer.pad_token_id), multiple, max_length), len(cut)


def as_read(prompts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """The part of each prompt that the model reads: all of it, or what is left by the cut to `max_length` tokens."""

    def read(prompt: str) -> str:
        if len(tokenizer(prompt, verbose=False)["input_ids"]) <= max_length:
            return prompt
        cut = tokenizer(prompt, truncation=True, max_length=max_length, return_offsets_mapping=tokenizer.is_fast)
        if tokenizer.is_fast:
            return prompt[: max(end for _, end in cut["offset_mapping"])]
        return str(tokenizer.decode(cut["input_ids"], skip_special_tokens=True))  # where in the text is not known

    return [read(prompt) for prompt in prompts]


def padded_rows(rows: Sequence[Tensor], pad_id: int, multiple: int = 1, most: int = maxsize) -> EncodedPrompts:
    """Rows of token ids, of prompts or responses, padded on the right: to the next `multiple`, at most `most`."""
    ids = pad_sequence(list(rows), batch_first=True, padding_value=pad_id)
    ids = pad(ids, (0, round_up(ids.shape[1], multiple, most) - ids.shape[1]), value=pad_id)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    return EncodedPrompts(ids, torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1))


def tokenize_references(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, rules: TokenRules, max_length: int, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Texts as responses that the policy might have given: ids and mask (B, L), padded on the right.

    What the decoder starts with is left out, and all behind the first EOS; texts of more than `max_length` tokens are
    cut and have no EOS. L is a multiple of `multiple`, or `max_length`.
    """
    rows = []
    for ids in tokenizer(text_target=texts, verbose=False)["input_ids"]:
        start = next((s for s in (rules.prefix, rules.forced_ids) if s and tuple(ids[: len(s)]) == s), ())
        if rules.forced_ids and not start:  # else the policy would learn to write another language's code
            expected = f"reference texts that begin with the tokens {list(rules.forced_ids)}, as responses do"
            step = "set the tokenizer's target language (tgt_lang)"
            raise InputError(expected, f"{ids[: len(rules.forced_ids)]}", step)
        rows.append(torch.tensor(ids[len(start) :][:max_length]))
    found = padded_rows(rows, rules.pad_id, multiple, max_length)
    return found.ids, first_eos_mask(found.ids, rules.eos_ids) & found.mask


@dataclass(frozen=True)
class PromptCollator:
    """Collates dataset rows for the trainer."""

    tokenizer: PreTrainedTokenizerBase
    max_prompt_length: int
    multiple: int = 1

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Prompt ids and mask (B, S), how many were truncated (0-d), and every column as a list."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        prompts, truncated = tokenize_prompts(columns["prompt"], self.tokenizer, self.max_prompt_length, self.multiple)
        tensors = {"prompt_ids": prompts.ids, "prompt_mask": prompts.mask, "truncated": torch.tensor(truncated)}
        return {**tensors, "columns": columns}
