"""The frozen records that pass from collection to update."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from trl_rewards_plugin.ppo.acceleration.fixed_shapes import FREE, Widths, round_up
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A batch of scored responses, as it was before the update. What is None is not needed, or not known."""

    prompt_ids: Tensor  # (B, S), padded on the right
    prompt_mask: Tensor  # (B, S) bool, True on real prompt tokens
    response_ids: Tensor  # (B, T)
    response_mask: Tensor  # (B, T) bool, True on real response tokens, EOS included
    ended: Tensor  # (B,) bool, True where the response has its EOS
    sampled_logprobs: Tensor  # (B, T) as the sampler drew them
    logprobs: Tensor  # (B, T) before the update: the old policy of PPO's ratio
    ref_logprobs: Tensor  # (B, T) of the same tokens under the reference
    entropies: Tensor  # (B, T) in nats
    values: Tensor  # (B, T) before the update
    scores: Tensor  # (B,) total reward of each response, any penalty for a missing EOS included
    encoder_states: Tensor | None = None  # (B, S, H) of the policy's encoder where that is frozen
    exact_kl: Tensor | None = None  # (B, T) before the update, of whole distributions to the reference's, in nats
    anchor_features: Tensor | None = None  # (B, T, H) for the exact KL in the loss, see `Anchor`
    reward_scores: Tensor | None = None  # (B, K) of each reward, NaN where it gave none
    target_ids: Tensor | None = None  # (B, L) the prompts' reference texts, where they are learnt from
    target_mask: Tensor | None = None  # (B, L) bool, True on their real tokens

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    @property
    def prompts(self) -> EncodedPrompts:
        """The prompts, with encoder states where the encoder is frozen."""
        return EncodedPrompts(self.prompt_ids, self.prompt_mask, self.encoder_states)

    @cached_property
    def lengths(self) -> Tensor:
        """(2, B) on the CPU: tokens of each prompt, and of each response."""
        return torch.stack([self.prompt_mask.sum(1), self.response_mask.sum(1)]).cpu()

    def select(self, rows: Tensor, widths: Widths = FREE) -> Self:
        """The rows (M,), numbers on the CPU, cut to their longest prompt and response, or to multiples of `widths`."""
        prompt, response = self.lengths[:, rows].amax(1).clamp(min=1).tolist()
        prompt = round_up(prompt, widths.prompt, self.prompt_ids.shape[1])
        response = round_up(response, widths.response, self.response_ids.shape[1])
        there = rows.to(self.prompt_ids.device, non_blocking=True)
        picked = {name: value[there] for name, value in self.tensors().items()}
        ends = {"prompt": prompt, "encoder": prompt, "target": None}
        for name, value in picked.items():
            if value.dim() >= 2:
                picked[name] = value[:, : ends.get(name.partition("_")[0], response)]
        return type(self)(**picked)

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name, without those that are None."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class UpdateBatch(Rollout):
    """Rows of a rollout with what the update aims at."""

    advantages: Tensor  # (B, T), 0 where the response mask is False
    returns: Tensor  # (B, T), likewise
    # (B,) what a unit of reward has become in the advantages, where the loss completes a penalty in the rewards
    reward_scale: Tensor | None = None


def join_rollouts(rollouts: list[Rollout], pad_id: int) -> Rollout:
    """One rollout of all rows, padded on the right to the longest prompt and the longest response."""
    joined = {}
    tensors = [rollout.tensors() for rollout in rollouts]
    for name in tensors[0]:
        parts = [own[name] for own in tensors]
        if parts[0].dim() >= 2:  # (B, T, ...)
            width = max(part.shape[1] for part in parts)
            fill, behind = pad_id if name.endswith("_ids") else 0, (0, 0) * (parts[0].dim() - 2)
            parts = [pad(part, (*behind, 0, width - part.shape[1]), value=fill) for part in parts]
        joined[name] = torch.cat(parts)
    return Rollout(**joined)
