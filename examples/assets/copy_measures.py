"""How well a model writes out one sentence of its passage: edits to the closest sentence, and which one it was.

Leaves out: training, and whether the chosen sentence is a good one.
"""

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import torch
from make_prompts import split_sentences
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def word_edits(left: str, right: str) -> int:
    """Word-level Levenshtein distance of two texts, after NFKC; words are white-space words."""
    before, after = (unicodedata.normalize("NFKC", text).split() for text in (left, right))
    row = list(range(len(after) + 1))
    for i, word in enumerate(before, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(after, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def closest_sentence(output: str, passage: str) -> tuple[int, int]:
    """(position, edits) of the sentence of `passage` that `output` has the fewest word edits to; first of equals."""
    edits = [word_edits(output, sentence) for sentence in split_sentences(passage)]
    return edits.index(min(edits)), min(edits)


def has_loop(output: str) -> bool:
    """True if some three words in a row occur twice."""
    words = output.split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) < len(triples)


@dataclass(frozen=True)
class CopyReport:
    """Shares over prompts, and how often the closest sentence was the first, second, third of 2 or of 3."""

    exact: float
    within_two: float  # at most two word edits
    loops: float
    positions: dict[str, int]  # "1 of 2": count, over outputs within two edits
    outputs: list[str] = field(repr=False)


@torch.no_grad()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, sample: bool
) -> list[str]:
    """One output a prompt, greedy or sampled at temperature 1 from the whole distribution."""
    inputs = tokenizer(prompts, padding=True, return_tensors="pt")
    chosen = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0} if sample else {"do_sample": False}
    ids = model.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=48, **chosen
    )
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, sample: bool
) -> CopyReport:
    """Generates one output a prompt and compares it with the sentences of the prompt."""
    outputs = generate(model, tokenizer, prompts, sample=sample)
    closest = [closest_sentence(output, prompt) for output, prompt in zip(outputs, prompts, strict=True)]
    near = Counter(
        f"{position + 1} of {len(split_sentences(prompt))}"
        for (position, edits), prompt in zip(closest, prompts, strict=True)
        if edits <= 2
    )
    return CopyReport(
        exact=sum(edits == 0 for _, edits in closest) / len(prompts),
        within_two=sum(edits <= 2 for _, edits in closest) / len(prompts),
        loops=sum(map(has_loop, outputs)) / len(prompts),
        positions=dict(sorted(near.items())),
        outputs=outputs,
    )


@torch.no_grad()
def sentence_log_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, passage: str
) -> torch.Tensor:
    """(sentences of the passage,) log-probability that an output sampled at temperature 1 is exactly that sentence."""
    parts = split_sentences(passage)
    source = tokenizer([passage] * len(parts), return_tensors="pt")
    target = tokenizer(parts, padding=True, return_tensors="pt")
    logits = model(
        input_ids=source["input_ids"], attention_mask=source["attention_mask"], labels=target["input_ids"]
    ).logits
    each = logits.float().log_softmax(-1).gather(-1, target["input_ids"].unsqueeze(-1)).squeeze(-1)
    return (each * target["attention_mask"]).sum(-1)


def choice_entropy(log_probabilities: torch.Tensor) -> float:
    """Entropy of the choice among the sentences, given that it is one of them: 0 always the same, 1 all equal."""
    logs = log_probabilities.log_softmax(-1)
    return -(logs.exp() * logs).sum().item() / math.log(len(logs))


def choice_summary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> dict[str, float]:
    """Means over prompts: `exact` chance of a sampled output, `entropy` of the choice, and `certain`.

    `certain` is the share of prompts of which one sentence holds more than 90 % of that chance.
    """
    every = [sentence_log_probabilities(model, tokenizer, prompt) for prompt in prompts]
    return {
        "exact": sum(logs.exp().sum().item() for logs in every) / len(every),
        "entropy": sum(map(choice_entropy, every)) / len(every),
        "certain": sum(logs.softmax(-1).max().item() > 0.9 for logs in every) / len(every),
    }
