"""Sampling over fixed buffers: one decoding step, the same work every time, replayed as a graph where there is one.

The cache is transformers' own `StaticCache`, so that the step has no code for any architecture. Rows that have ended
run on, to be masked behind their EOS. Leaves out: the sampler that drops them (policy/sampling.py), as a CPU wants.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import EncoderDecoderCache, PreTrainedModel, StaticCache
from transformers.modeling_outputs import MoEModelOutput

from trl_rewards_plugin.ppo.acceleration import static_calls
from trl_rewards_plugin.ppo.acceleration.fixed_shapes import fixed_shapes
from trl_rewards_plugin.ppo.acceleration.lower_precision import autocast_dtype, exact_matrices
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls, Tensors, Work
from trl_rewards_plugin.ppo.architectures.forward_passes import cache_name
from trl_rewards_plugin.ppo.finite import check_sampling
from trl_rewards_plugin.ppo.maths.masking import known_ids
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.policy.token_scores import draw_tokens

LOOK_EVERY = 16  # tokens between two looks at what was sampled: each waits for all that the device was asked for
_NAME = "sampling"
_MOST = 4  # samplers: each holds the keys and values of a whole batch


class StaticSampler:
    """Draws a response of `steps` tokens for each of B prompts of S tokens; its buffers are all that it touches."""

    def __init__(self, model: PreTrainedModel, rules: TokenRules, states: Tensor, steps: int, greedy: bool):
        (batch, width, _), device = states.shape, states.device
        self._model, self._rules, self._greedy = model, rules, greedy
        config, length = model.config.get_text_config(decoder=True), len(rules.prefix) + steps
        self._cache = EncoderDecoderCache(*(StaticCache(config=config, max_cache_len=n) for n in (length, width)))
        # Copies of the matrices in autocast's precision, read instead of them; none without autocast.
        dtype, exact = autocast_dtype(model), exact_matrices(model)
        self._lower = {} if dtype is None else {name: weight.detach().to(dtype) for name, weight in exact.items()}
        self._exact = [exact[name].detach() for name in self._lower]
        self._prefix = known_ids(rules.prefix, device).expand(batch, -1)
        self._states = states.clone()
        self._prompt_mask = torch.zeros(batch, width, dtype=torch.long, device=device)
        # Hides nothing; without it the BART family makes one whose width it reads from the device.
        self._decoder_mask = torch.ones(batch, length, dtype=torch.long, device=device)
        self._eos_ids = known_ids(rules.eos_ids, device)
        too_early = torch.arange(steps, device=device) < rules.min_new_tokens
        self._eos_weights = torch.zeros(steps, device=device).masked_fill_(too_early, -torch.inf)
        self.token = torch.zeros(batch, 1, dtype=torch.long, device=device)  # drawn last
        self.now = torch.zeros(1, dtype=torch.long, device=device)  # number of the next: a graph would freeze an int
        self.ids = torch.zeros(batch, steps, dtype=torch.long, device=device)  # the tokens drawn
        self.logprobs = torch.zeros(batch, steps, device=device)  # of these tokens, in nats
        self.alive = torch.ones(batch, dtype=torch.bool, device=device)  # no EOS was drawn yet
        self.broken = torch.zeros_like(self.alive)  # the model gave NaN
        self._first = _Draw(self, self._read_prefix)
        self._next = _Draw(self, lambda: self._read(self.token))
        self._read(self._prefix)  # the cache makes its buffers with the first pass

    def open(self, states: Tensor, prompt_mask: Tensor, calls: StaticCalls) -> None:
        """Draws the first token of new prompts, of encoder states (B, S, H) and mask (B, S)."""
        self._states.copy_(states)
        self._prompt_mask.copy_(prompt_mask)
        if self._exact:
            torch._foreach_copy_(list(self._lower.values()), self._exact)
        self.now.zero_()
        self.alive.fill_(True)
        self.broken.fill_(False)
        calls.run(_NAME, self._first)

    def advance(self, calls: StaticCalls) -> None:
        calls.run(_NAME, self._next)

    def drop(self) -> None:
        self._first.drop()
        self._next.drop()

    def moving(self) -> list[Tensor]:
        """The buffers that a step moves on; it writes all others anew."""
        counters = [cast(Any, layer).cumulative_length for layer in self._cache.self_attention_cache.layers]
        return [self.token, self.now, self.alive, self.broken, *counters]

    def _read_prefix(self) -> Tensor:
        """Logits (B, V) of the first token; the cache takes in the prompts."""
        self._cache.reset()
        return self._read(self._prefix)

    def _read(self, token: Tensor) -> Tensor:
        """Logits (B, V) of what follows tokens (B, n), which the cache takes in."""
        encoded = MoEModelOutput(last_hidden_state=self._states)
        inputs: dict[str, Any] = {"encoder_outputs": encoded, "attention_mask": self._prompt_mask, "return_dict": True}
        inputs |= {"decoder_input_ids": token, "decoder_attention_mask": self._decoder_mask}
        inputs |= {cache_name(self._model): self._cache, "use_cache": True}
        with static_calls.uncached_autocast(token.device.type):
            outputs: Any = functional_call(self._model, self._lower, (), inputs, tie_weights=False)
        return cast(Tensor, outputs.logits[:, -1])

    def logprobs_of(self, logits: Tensor) -> Tensor:
        """Log-probabilities (B, V) of the next token, by the rules of this step."""
        weights = self._rules.log_weights(logits.unsqueeze(1), self._rules.min_new_tokens)[:, 0]
        now = self._eos_weights.index_select(0, self.now).expand(len(weights), len(self._eos_ids))
        return weights.index_add_(1, self._eos_ids, now).log_softmax(-1)

    def draw(self, logits: Tensor) -> None:
        """Draws the next token of every row from logits (B, V), and moves on."""
        logprobs = self.logprobs_of(logits)
        token = logprobs.argmax(-1, keepdim=True) if self._greedy else draw_tokens(logprobs.exp())
        chosen = logprobs.gather(1, token)
        self.broken.logical_or_(chosen[:, 0].isnan())
        self.alive.logical_and_(torch.isin(token[:, 0], self._eos_ids, invert=True))
        self.ids.index_copy_(1, self.now, token)
        self.logprobs.index_copy_(1, self.now, chosen)
        self.token.copy_(token)
        self.now.add_(1)


class _Draw(Work):
    """Draws a token of every row, from the logits that `read` gives."""

    def __init__(self, sampler: StaticSampler, read: Callable[[], Tensor]):
        self._sampler, self._read = sampler, read

    def run(self) -> None:
        self._sampler.draw(self._read())

    def eagerly(self) -> Tensors:
        before = static_calls.copies(self.moving())
        try:
            return {"logprobs": self._sampler.logprobs_of(self._read())}
        finally:
            static_calls.restore(self.moving(), before)

    def moving(self) -> list[Tensor]:
        return self._sampler.moving()

    def compared(self, eager: Tensors) -> tuple[Tensors, Tensors]:
        sampler, name = self._sampler, "the log-probability of a token"
        found = sampler.logprobs.index_select(1, sampler.now - 1)
        return {name: eager["logprobs"].gather(1, sampler.token)}, {name: found}


def sample_static(
    calls: StaticCalls, model: PreTrainedModel, prompts: EncodedPrompts, rules: TokenRules, steps: int, greedy: bool
) -> tuple[Tensor, Tensor]:
    """Draws responses of at most `steps` tokens to encoded prompts, padded to one of few widths.

    Returns token ids and their log-probabilities in nats (B, T), T below `steps` where all have ended;
    NotFiniteError where the model's logits are NaN.
    """
    states = cast(Tensor, prompts.states)
    known = (states.shape, states.dtype, rules, steps, greedy)
    sampler = calls.kept(_NAME, known, model, lambda: StaticSampler(model, rules, states, steps, greedy), most=_MOST)
    with fixed_shapes():
        sampler.open(states, prompts.mask, calls)
        step = 1
        while step < steps:
            sampler.advance(calls)
            step += 1
            if step % LOOK_EVERY == 0 or step == steps:
                check_sampling(sampler.broken, torch.arange(len(states), device=states.device))
                if not sampler.alive.any():
                    break
    return sampler.ids[:, :step].clone(), sampler.logprobs[:, :step].clone()
