"""Sampling: one response per prompt from the distribution that is scored, with what the sampler computed on its way.

The loop is our own, over the model's forward pass with its key-value cache: `generate` would merge the checkpoint's
defaults (beams, minimum length, n-gram blocks, forced tokens) into whatever settings it is given.
Leaves out: decoding to text, and rewards.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.architectures.forward_passes import CachedDecoder, decoder_width, run_encoder
from trl_rewards_plugin.ppo.finite import check_sampling
from trl_rewards_plugin.ppo.maths.masking import first_eos_mask
from trl_rewards_plugin.ppo.policy.drawing import draw_tokens
from trl_rewards_plugin.ppo.policy.encoded_prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.known_ids import known_ids
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.policy.token_scores import entropies


@dataclass(frozen=True)
class Responses:
    """Sampled responses.

    Attributes:
        ids: (B, T) without the decoder start, pad behind the EOS; T is the longest response here.
        mask: (B, T) bool, True on real tokens, EOS included.
        ended: (B,) bool, True where the response has its EOS.
        seen: what the sampler computed with each token; None where the tokens were drawn elsewhere.
    """

    ids: Tensor
    mask: Tensor
    ended: Tensor
    seen: "SamplerOutputs | None" = None


@dataclass(frozen=True)
class SamplerOutputs:
    """What the sampler computed when it drew each token; 0 where the mask is False.

    Attributes:
        logprobs: (B, T) of the token, in nats.
        entropies: (B, T) of the distribution that it was drawn from, in nats.
        hidden: (B, T, H) the decoder's last hidden states before the token.
    """

    logprobs: Tensor
    entropies: Tensor
    hidden: Tensor

    @classmethod
    def empty(cls, batch: int, steps: int, width: int, device: torch.device) -> "SamplerOutputs":
        """Zeros, to be overwritten."""
        zeros = torch.zeros(batch, steps, device=device)
        return cls(zeros, zeros.clone(), torch.zeros(batch, steps, width, device=device))

    def write(self, rows: Tensor, step: int, logprobs: Tensor, entropies: Tensor, hidden: Tensor) -> None:
        """One step (M,), (M,), (M, H) of some rows."""
        self.logprobs[rows, step] = logprobs.float()
        self.entropies[rows, step] = entropies.float()
        self.hidden[rows, step] = hidden.float()

    def masked(self, mask: Tensor) -> "SamplerOutputs":
        """The first T steps, 0 where `mask` (B, T) is False."""
        width = mask.shape[1]
        logprobs, entropies = (values[:, :width].where(mask, 0.0) for values in (self.logprobs, self.entropies))
        return SamplerOutputs(logprobs, entropies, self.hidden[:, :width].where(mask.unsqueeze(-1), 0.0))


def sampled_as_scored(model: PreTrainedModel) -> bool:
    """Whether the sampler's outputs are those of teacher forcing, up to float32's rounding (below 1e-4 nats).

    In lower precision the two differ by more: a single token's products are rounded otherwise than a whole response's.
    On a GPU float32 may be TF32 inside a product, which the Trainer switches on by default.
    """
    exact = model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
    return exact and model.device.type == "cpu"


@torch.no_grad()
def encode_prompts(model: PreTrainedModel, prompts: EncodedPrompts) -> EncodedPrompts:
    """The prompts with the states of the model's encoder, without gradient."""
    return prompts.with_states(run_encoder(model, prompts.ids, prompts.mask))


@torch.no_grad()
def sample_responses(
    model: PreTrainedModel,
    prompts: EncodedPrompts,
    rules: TokenRules,
    max_new_tokens: int,
    *,
    greedy: bool = False,
) -> Responses:
    """Draws one response per prompt from softmax(logits / temperature) over the allowed tokens.

    Uses torch's global random state, which the Trainer saves in its checkpoints. A row that has ended leaves the batch
    once half of the rows have, so late tokens of few long responses cost little. On a GPU this is looked at every 16
    tokens, and nothing else here waits for it.

    Args:
        model: the bare encoder-decoder.
        prompts: encoded here where they have no states yet.
        max_new_tokens: responses are cut here; one that is cut has no EOS.
        greedy: take the likeliest allowed token instead of drawing.

    Raises:
        NotFiniteError: the model's logits are NaN or infinite.
    """
    states = run_encoder(model, prompts.ids, prompts.mask) if prompts.states is None else prompts.states
    batch, device = len(prompts), prompts.ids.device
    eos_ids = known_ids(rules.eos_ids, device)
    look_every = _look_every(device)
    ids = torch.full((batch, max_new_tokens), rules.pad_id, device=device)
    seen = SamplerOutputs.empty(batch, max_new_tokens, decoder_width(model), device)
    rows = torch.arange(batch, device=device)  # which row of the result each row of the running batch fills
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    broken = torch.zeros_like(alive)  # by log-softmax one NaN makes a row's log-probabilities all NaN
    *before, token = (torch.full((batch, 1), token_id, device=device) for token_id in rules.prefix)
    decoder = CachedDecoder(model, states, prompts.mask)
    for given in before:
        decoder.step(given)
    for step in range(max_new_tokens):
        logits, hidden = decoder.step(token)
        logprobs = rules.log_weights(logits, step)[:, 0].log_softmax(-1)
        broken = broken | logprobs[:, 0].isnan()
        probabilities = logprobs.exp()
        token = logprobs.argmax(-1, keepdim=True) if greedy else draw_tokens(probabilities)
        # Rows that have ended run on until they leave; what they write is masked below.
        ids[rows, step] = token[:, 0]
        seen.write(rows, step, logprobs.gather(1, token)[:, 0], entropies(logprobs, probabilities), hidden[:, 0])
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
    response_mask = first_eos_mask(ids[:, : step + 1], rules.eos_ids)
    response_mask = response_mask[:, : int(response_mask.sum(1).max())]
    ids = ids[:, : response_mask.shape[1]]
    ended = (torch.isin(ids, eos_ids) & response_mask).any(dim=1)
    return Responses(ids.where(response_mask, rules.pad_id), response_mask, ended, seen.masked(response_mask))


def _look_every(device: torch.device) -> int:
    """Tokens between two looks at what was sampled: each waits for all that is under way on a GPU."""
    return 1 if device.type == "cpu" else 16
