"""Sampling responses, and the frozen record that passes from collection to update.

Sampling is a loop of our own over the model's forward pass with its key-value cache: `generate` would merge the
checkpoint's own defaults (beams, minimum length, n-gram blocks, forced tokens) into whatever it is given.
Leaves out: decoding to text and rewards (the trainer brings scores), and advantages.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.architectures import decoder_step, new_cache
from trl_rewards_plugin.ppo.drawing import draw_tokens
from trl_rewards_plugin.ppo.encoder import run_encoder
from trl_rewards_plugin.ppo.few_rows import turned_linears
from trl_rewards_plugin.ppo.finite import check_logprobs
from trl_rewards_plugin.ppo.masking import first_eos_mask
from trl_rewards_plugin.ppo.token_rules import TokenRules


@dataclass(frozen=True)
class Responses:
    """Sampled responses.

    Attributes:
        ids: (B, T) without the decoder start, pad behind the EOS; T is the longest response here.
        mask: (B, T) bool, True on real tokens, EOS included.
        logprobs: (B, T) with which the sampler drew each token, in nats; 0 where the mask is False. None where
            someone else drew them.
        ended: (B,) bool, True where the response has its EOS.
    """

    ids: Tensor
    mask: Tensor
    logprobs: Tensor | None
    ended: Tensor


@dataclass(frozen=True)
class Rollout:
    """Everything that the update needs to know of one batch of responses.

    Attributes:
        prompt_ids: (B, S), padded on the right.
        prompt_mask: (B, S) bool, True on real prompt tokens.
        response_ids: (B, T).
        response_mask: (B, T) bool, True on real response tokens, EOS included.
        ended: (B,) bool, True where the response has its EOS.
        sampled_logprobs: (B, T) as the sampler drew them.
        logprobs: (B, T) recomputed by teacher forcing before the update: the old policy of PPO's ratio.
        ref_logprobs: (B, T) of the same tokens under the reference.
        entropies: (B, T) in nats.
        values: (B, T) before the update.
        scores: (B,) total reward of each response, any penalty for a missing EOS included.
        encoder_states: (B, S, H) what the encoder says of the prompts, where it is frozen; else None.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    ended: Tensor
    sampled_logprobs: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    entropies: Tensor
    values: Tensor
    scores: Tensor
    encoder_states: Tensor | None = None

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    def select(self, rows: Tensor) -> "Rollout":
        """The rollout of some rows, cut to the longest prompt and response among them.

        Args:
            rows: (M,) row numbers.
        """
        picked = {name: value[rows] for name, value in self._tensors().items()}
        longest = {
            "prompt_mask": int(picked["prompt_mask"].sum(1).max()),
            "response_mask": int(picked["response_mask"].sum(1).max()),
        }
        for name, value in picked.items():
            if value.dim() >= 2:
                owner = "prompt_mask" if name.startswith(("prompt", "encoder")) else "response_mask"
                picked[name] = value[:, : longest[owner]]
        return Rollout(**picked)

    def _tensors(self) -> dict[str, Tensor]:
        """The fields that are there, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


def join_rollouts(rollouts: list[Rollout], pad_id: int) -> Rollout:
    """One rollout of all rows, padded on the right to the longest prompt and the longest response."""
    joined = {}
    tensors = [rollout._tensors() for rollout in rollouts]
    for name in tensors[0]:
        parts = [own[name] for own in tensors]
        if parts[0].dim() >= 2:
            width = max(part.shape[1] for part in parts)
            fill = pad_id if name.endswith("_ids") else 0
            parts = [_widened(part, width, fill) for part in parts]
        joined[name] = torch.cat(parts)
    return Rollout(**joined)


def _widened(values: Tensor, width: int, fill: int) -> Tensor:
    """(B, T, ...) -> (B, width, ...), filled on the right."""
    behind = (0, 0) * (values.dim() - 2)
    return torch.nn.functional.pad(values, (*behind, 0, width - values.shape[1]), value=fill)


@torch.no_grad()
def encode_prompts(model: PreTrainedModel, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """What the encoder says of prompts (B, S), once for all who read it: (B, S, H), without gradient."""
    return run_encoder(model, prompt_ids, prompt_mask)


@torch.no_grad()
def sample_responses(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    rules: TokenRules,
    max_new_tokens: int,
    *,
    greedy: bool = False,
    encoder_states: Tensor | None = None,
) -> Responses:
    """Draws one response a prompt from softmax(logits / temperature) over the allowed tokens.

    Uses torch's global random state, which the host saves in its checkpoints. A row that has ended leaves the batch
    once half of the rows have, so late tokens of few long responses cost little.

    Args:
        model: the bare encoder-decoder.
        prompt_ids, prompt_mask: (B, S), padded on the right.
        max_new_tokens: responses are cut here; one that is cut has no EOS.
        greedy: take the likeliest allowed token instead of drawing.
        encoder_states: (B, S, H) of `encode_prompts`, where they are known already.

    Raises:
        NotFiniteError: the model's logits are NaN or infinite.
    """
    batch, device = prompt_ids.shape[0], prompt_ids.device
    ids = torch.full((batch, max_new_tokens), rules.pad_id, device=device)
    logprobs = torch.zeros((batch, max_new_tokens), device=device)
    eos_ids = torch.tensor(rules.eos_ids, device=device)
    if encoder_states is None:
        encoder_states = encode_prompts(model, prompt_ids, prompt_mask)
    rows = torch.arange(batch, device=device)  # which row of the result each row of the running batch fills
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    states, mask, cache = encoder_states, prompt_mask, new_cache()
    *before, token = (torch.full((batch, 1), token_id, device=device) for token_id in rules.prefix)
    with turned_linears(model):
        for given in before:
            decoder_step(model, given, states, mask, cache)
        for step in range(max_new_tokens):
            logits, _ = decoder_step(model, token, states, mask, cache)
            all_logprobs = rules.log_weights(logits, step)[:, 0].log_softmax(-1)
            check_logprobs(all_logprobs, rows)
            token = all_logprobs.argmax(-1, keepdim=True) if greedy else draw_tokens(all_logprobs)
            filled = rows[alive]
            ids[filled, step] = token[alive, 0]
            logprobs[filled, step] = all_logprobs.gather(1, token)[alive, 0]
            alive = alive & ~torch.isin(token[:, 0], eos_ids)
            count = int(alive.sum())
            if count == 0:
                break
            if count <= alive.shape[0] // 2:
                keep = alive.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                states, mask, rows, token, alive = states[keep], mask[keep], rows[keep], token[keep], alive[keep]
    response_mask = first_eos_mask(ids, rules.eos_ids)
    width = step + 1
    ended = (torch.isin(ids, eos_ids) & response_mask).any(dim=1)
    return Responses(ids[:, :width], response_mask[:, :width], logprobs[:, :width], ended)
