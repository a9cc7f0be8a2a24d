"""RewardModel: a reward function as the `nn.Module` that TRL's PPOTrainer (up to 1.12) takes as its reward model."""

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from trl_rewards_plugin.errors import InputError, check_choice
from trl_rewards_plugin.rewards.texts import shortened


class _Backbone(nn.Module):
    """Stands where TRL looks for the transformer: its hidden states (B, S + T, 1) are the scores of the rows."""

    def __init__(self, scores: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self._scores = scores

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **unused: Any) -> BaseModelOutput:
        hidden = self._scores(input_ids, attention_mask)[:, None, None].expand(-1, input_ids.shape[1], 1)
        return BaseModelOutput(last_hidden_state=hidden, hidden_states=(hidden,))


class RewardModel(nn.Module):
    """A reward as TRL's PPOTrainer wants it: `base_model_prefix`, a backbone with hidden states, and `score`.

    TRL hands it query + response as token ids of the *policy's* vocabulary, does not say where the response begins,
    and reads one number at the last token. The text is decoded here, scored, and the score put at every position. It
    has no parameters of its own: the classifiers stay outside, on the device they were given.

    Args:
        reward: Any reward function in TRL's protocol.
        processing_class: The policy's tokenizer.
        prompts: The tokenised queries, training and evaluation, lists or 1-D tensors of token ids, without or with
            padding. The response is what follows the longest of them that a row begins with.
        response_template: The response is what follows the first occurrence of this text, which ends each query.
            For queries that hold it more than once (several chat turns), pass `prompts` instead.
        part: "response" scores the response alone, with the query as its prompt; "text" scores both as one text.

    Raises:
        InputError: when built: "response" with neither or both of `prompts` and `response_template`, "text" with
            either, an unknown part, prompts that are not token ids; when called: a row in which no response is found.
        RuntimeError: when called: the reward gave no number for a row.
    """

    base_model_prefix = "backbone"

    def __init__(
        self,
        reward: Callable[..., Sequence[float | None]],
        processing_class: Any,
        *,
        prompts: Iterable[Any] | None = None,
        response_template: str | None = None,
        part: str = "response",
    ):
        super().__init__()
        check_choice("part", part, ("response", "text"))
        given = (prompts is not None) + bool(response_template)
        if part == "response" and given != 1:
            expected = "prompts= or response_template=, one of them, to tell the response from the query"
            step = "pass prompts= the tokenised queries, or part='text' to score query and response together"
            raise InputError(expected, "both" if given else "neither", step)
        if part == "text" and given:
            expected = "neither prompts nor response_template with part='text'"
            raise InputError(expected, "one of them", "leave it out, or part='text'")
        self.reward = reward
        self.tokenizer = processing_class
        self.part, self.response_template = part, response_template
        self._queries = set() if prompts is None else _query_set(prompts, processing_class.pad_token_id)
        self._query_lengths = sorted({len(query) for query in self._queries}, reverse=True)
        self.backbone = _Backbone(self.forward)

    def score(self, hidden_states: Tensor) -> Tensor:
        return hidden_states

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores (B,) float32 of B rows (B, S + T) of query and response, padding where `attention_mask` is 0."""
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        starts = [0 if self.part == "text" else self._response_start(row) for row in rows]
        given = {"completions": [self._decode(row[start:]) for row, start in zip(rows, starts, strict=True)]}
        if self.part == "response":
            given["prompts"] = [self._decode(row[:start]) for row, start in zip(rows, starts, strict=True)]
        numbers = [math.nan if score is None else score for score in self.reward(**given)]
        total = torch.tensor(numbers, dtype=torch.float32, device=input_ids.device)
        if not total.isfinite().all():
            first = int((~total.isfinite()).nonzero()[0])
            found = f"{total[first].item()} for {shortened(self._decode(rows[first]))}"
            raise RuntimeError(f"the reward gave {found}; TRL's PPOTrainer needs a number for every response")
        return total

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _response_start(self, row: list[int]) -> int:
        # Longest first: one query may be the beginning of another.
        for length in self._query_lengths:
            if tuple(row[:length]) in self._queries:
                return length
        if self._queries:
            expected = f"a row that begins with one of the {len(self._queries)} queries given as prompts="
            step = "pass the tokenised queries of the training and of the evaluation set, as the trainer gets them"
            raise InputError(expected, shortened(self._decode(row)), step)
        # The fewest tokens whose text holds the template. First occurrence: the policy may write it again.
        template = self.response_template or ""
        if template not in self.tokenizer.decode(row):
            found = f"none in {shortened(self.tokenizer.decode(row))}"
            step = "give the template as the tokenizer decodes it, or pass the tokenised queries as prompts="
            raise InputError(f"the response template {template!r} in every query", found, step)
        ends = range(1, len(row) + 1)
        return ends[bisect.bisect_left(ends, True, key=lambda end: template in self.tokenizer.decode(row[:end]))]


def _query_set(prompts: Iterable[Any], pad_token_id: int | None) -> set[tuple[int, ...]]:
    queries = set()
    for index, prompt in enumerate(prompts):
        ids = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        if not isinstance(ids, list | tuple) or not all(isinstance(token, int) for token in ids):
            found = f"prompts[{index}] is {shortened(str(prompt))}"
            step = "tokenise the queries as for the trainer and pass their input_ids"
            raise InputError("prompts as lists of token ids", found, step)
        queries.add(tuple(token for token in ids if token != pad_token_id))
    if not queries:
        raise InputError("at least one tokenised query", "no prompts", "pass the input_ids of the data set")
    return queries
