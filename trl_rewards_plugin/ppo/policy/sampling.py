"""Sampling: one response per prompt from the distribution that is scored, with what the sampler computed on its way.

The loop is our own: `generate` would merge the checkpoint's defaults (beams, minimum length, n-gram blocks, forced
tokens) into whatever settings it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.acceleration.fixed_shapes import round_up
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.acceleration.static_sampling import LOOK_EVERY, sample_static
from trl_rewards_plugin.ppo.architectures.families import family_of
from trl_rewards_plugin.ppo.architectures.forward_passes import CachedDecoder, decoder_width, run_encoder
from trl_rewards_plugin.ppo.finite import check_sampling
from trl_rewards_plugin.ppo.maths.masking import first_eos_mask, has_eos, known_ids
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.policy.token_scores import draw_tokens, entropies


@dataclass(frozen=True)
class Responses:
    """Sampled responses, and what the sampler computed with each token: 0 where the mask is False, None if unknown."""

    ids: Tensor  # (B, T) without the decoder start, pad behind the EOS; T is the longest response here
    mask: Tensor  # (B, T) bool, True on real tokens, EOS included
    ended: Tensor  # (B,) bool, True where the response has its EOS
    logprobs: Tensor | None = None  # (B, T) of the token, in nats
    entropies: Tensor | None = None  # (B, T) of the distribution that it was drawn from, in nats
    hidden: Tensor | None = None  # (B, T, H) the decoder's last hidden states before the token


def sampled_as_scored(model: PreTrainedModel) -> bool:
    """Whether the sampler's outputs are those of teacher forcing, up to float32's rounding (below 1e-4 nats).

    In lower precision the two differ by more: a single token's products are rounded otherwise than a whole response's.
    On a GPU float32 may be TF32 inside a product, by `tf32=True`.
    """
    return model.dtype == torch.float32 and model.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


@torch.no_grad()
def encode_prompts(
    model: PreTrainedModel, prompts: EncodedPrompts, calls: StaticCalls | None = None
) -> EncodedPrompts:
    """The prompts with the states of the model's encoder, without gradient."""

    def encode(ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"states": run_encoder(model, ids, mask)}

    found = (calls or StaticCalls())("encoding", encode, {"ids": prompts.ids, "mask": prompts.mask}, model)
    return prompts.with_states(found["states"])


@torch.no_grad()
def sample_responses(
    model: PreTrainedModel,
    prompts: EncodedPrompts,
    rules: TokenRules,
    max_new_tokens: int,
    *,
    greedy: bool = False,
    calls: StaticCalls | None = None,
) -> Responses:
    """Draws one response per prompt from softmax(logits / temperature) over the allowed tokens.

    Uses torch's global random state, which the Trainer saves in its checkpoints.

    Args:
        prompts: encoded here where they have no states yet.
        max_new_tokens: responses are cut here; one that is cut has no EOS.
        greedy: take the likeliest allowed token instead of drawing.
        calls: where shapes are fixed, responses are padded to one of few widths.

    Raises:
        NotFiniteError: the model's logits are NaN or infinite.
    """
    calls = calls or StaticCalls()
    if prompts.states is None:
        prompts = encode_prompts(model, prompts, calls)
    if calls.fixed and family_of(model.config).static_decoding(model.config):
        ids, *outputs = sample_static(calls, model, prompts, rules, max_new_tokens, greedy)
    else:
        ids, *outputs = _sample_dropping_rows(model, prompts, rules, max_new_tokens, greedy)
    mask = first_eos_mask(ids, rules.eos_ids)
    width = round_up(int(mask.sum(1).max()), calls.widths.response, ids.shape[1])
    ids, mask = ids[:, :width], mask[:, :width]
    ended = has_eos(ids, mask, rules.eos_ids)
    seen = (values[:, :width].where(mask.view(*mask.shape, *(1,) * (values.dim() - 2)), 0.0) for values in outputs)
    return Responses(ids.where(mask, rules.pad_id), mask, ended, *seen)


def _sample_dropping_rows(
    model: PreTrainedModel, prompts: EncodedPrompts, rules: TokenRules, max_new_tokens: int, greedy: bool
) -> Sequence[Tensor]:
    """Token ids (B, T) of encoded prompts, anything behind an EOS, and the last fields of `Responses`.

    A row that has ended leaves the batch once half of the rows have, so late tokens of few long responses cost
    little. On a GPU this is looked at every 16 tokens, and nothing else here waits for it.
    """
    batch, device = len(prompts), prompts.ids.device
    eos_ids, look_every = known_ids(rules.eos_ids, device), _look_every(device)
    ids = torch.full((batch, max_new_tokens), rules.pad_id, device=device)
    outputs = [torch.zeros(batch, max_new_tokens, *more, device=device) for more in ((), (), (decoder_width(model),))]
    rows = torch.arange(batch, device=device)  # which row of the result each row of the running batch fills
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    broken = torch.zeros_like(alive)  # by log-softmax one NaN makes a row's log-probabilities all NaN
    *before, token = (torch.full((batch, 1), token_id, device=device) for token_id in rules.prefix)
    decoder = CachedDecoder(model, cast(Tensor, prompts.states), prompts.mask)
    for given in before:
        decoder.step(given)
    for step in range(max_new_tokens):
        logits, hidden = decoder.step(token)
        logprobs = rules.log_weights(logits, step)[:, 0].log_softmax(-1)
        broken = broken | logprobs[:, 0].isnan()
        probabilities = logprobs.exp()
        token = logprobs.argmax(-1, keepdim=True) if greedy else draw_tokens(probabilities)
        # Rows that have ended run on until they leave; what they write is masked by the caller.
        ids[rows, step] = token[:, 0]
        drawn = logprobs.gather(1, token)[:, 0]
        for values, new in zip(outputs, (drawn, entropies(logprobs, probabilities), hidden[:, 0]), strict=True):
            values[rows, step] = new.float()
        alive = alive & ~torch.isin(token[:, 0], eos_ids)
        if (step + 1) % look_every and step + 1 < max_new_tokens:
            continue
        check_sampling(broken, rows)
        keep = alive.nonzero()[:, 0]
        if len(keep) == 0:
            break
        if len(keep) <= len(rows) // 2:
            decoder.keep(keep)
            rows, token, alive, broken = rows[keep], token[keep], alive[keep], broken[keep]
    return ids[:, : step + 1], *outputs


def _look_every(device: torch.device) -> int:
    return 1 if device.type == "cpu" else LOOK_EVERY
