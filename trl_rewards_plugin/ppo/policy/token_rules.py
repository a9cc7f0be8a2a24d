"""Which tokens a response may hold, and how it starts and ends, alike in sampling, scoring and the reference.

What `generate` would force is not chosen by the policy: a forced first token (a language code, BART's bos) is part of
what the decoder starts with, and a forced EOS is left out.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.architectures.families import family_of
from trl_rewards_plugin.ppo.maths.masking import known_ids


@dataclass(frozen=True)
class TokenRules:
    """How responses of one model start and end, and what may never be in them."""

    start_id: int  # what the decoder sees before the first response token (T5: its pad; BART: its EOS)
    eos_ids: tuple[int, ...]  # every id that ends a response
    pad_id: int  # fills up a response after its end; never an action
    min_new_tokens: int = 0  # EOS is not allowed before this many other tokens
    suppressed: tuple[int, ...] = ()  # further ids that are never allowed
    temperature: float = 1.0  # logits are divided by it
    forced_ids: tuple[int, ...] = ()  # what the decoder sees after `start_id`, still before the first response token

    @property
    def prefix(self) -> tuple[int, ...]:
        """All that the decoder sees before the first response token."""
        return (self.start_id, *self.forced_ids)

    @property
    def never(self) -> tuple[int, ...]:
        return tuple(sorted({*self.suppressed} | ({self.pad_id} - set(self.eos_ids))))

    def of_any_text(self) -> "TokenRules":
        """The rules under which log-probabilities are the model's own: no temperature, and every token allowed."""
        return TokenRules(self.start_id, self.eos_ids, pad_id=self.eos_ids[0], forced_ids=self.forced_ids)

    def log_weights(self, logits: Tensor, first_step: int = 0) -> Tensor:
        """Unnormalised log-probabilities: logits / temperature in float32, -inf where a token is not allowed.

        Both are (B, T, V), of the steps first_step ... first_step + T - 1. Logits in float32 may be overwritten, which
        spares two passes over the vocabulary.
        """
        weights = logits.float()
        if self.temperature != 1.0:
            weights = weights / self.temperature
        never, eos = (known_ids(ids, logits.device) for ids in (self.never, self.eos_ids))
        too_early = max(0, self.min_new_tokens - first_step)
        # Past autograd: where a weight is -inf its probability, and with it every gradient, is 0 already.
        weights.detach().index_fill_(2, never, -torch.inf)
        weights.detach()[:, :too_early].index_fill_(2, eos, -torch.inf)
        return weights


def token_rules(
    model: PreTrainedModel, *, temperature: float = 1.0, min_new_tokens: int = 0, suppressed: tuple[int, ...] = ()
) -> TokenRules:
    """The rules of a model, from its generation config or, where that is silent, its config.

    InputError where start, EOS or pad is set in neither, a target language is missing, or a suppressed id is unknown.
    """
    size = model.get_output_embeddings().weight.shape[0]
    beyond = [token for token in suppressed if not 0 <= token < size]
    if beyond:
        raise InputError(f"suppress_tokens from 0 to {size - 1}", str(beyond), "leave these ids out")
    start, eos, pad = (_token_id(model, name) for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"))
    eos_ids = tuple(eos) if isinstance(eos, list | tuple) else (eos,)
    forced, family = _token_id(model, "forced_bos_token_id", needed=False), family_of(model.config)
    starts_with_it = family.language_may_start and start not in eos_ids
    if forced is None and family.forces_language and not starts_with_it:
        expected = f"the target language of {type(model).__name__}, a multilingual model"
        step = "load the model and set model.generation_config.forced_bos_token_id to the language's token, for NLLB "
        step += "tokenizer.convert_tokens_to_ids('fra_Latn'); to train it by name, save it with save_pretrained first"
        raise InputError(expected, "forced_bos_token_id=None in its generation config", step)
    forced_ids = () if forced is None else (forced,)
    return TokenRules(start, eos_ids, pad, min_new_tokens, suppressed, temperature, forced_ids)


def _token_id(model: PreTrainedModel, name: str, needed: bool = True) -> Any:
    own, general = (getattr(config, name, None) for config in (model.generation_config, model.config))
    if own is None and general is None and needed:
        expected, found = f"a model whose generation config or config sets {name}", f"{name}=None in both for "
        step = f"set model.generation_config.{name} before the model is passed"
        raise InputError(expected, found + type(model).__name__, step)
    return general if own is None else own
