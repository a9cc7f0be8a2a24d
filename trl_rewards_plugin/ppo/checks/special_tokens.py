"""Tokenizer and models agree on special tokens and on the size of the vocabulary, before anything is made from either.

Leaves out: what the tokens mean in a response (policy/token_rules.py).
"""

import logging
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import align_special_tokens

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.policy.policy import bare_model

_logger = logging.getLogger(__name__)


def agree_on_tokens(policy: nn.Module, processing_class: PreTrainedTokenizerBase) -> None:
    """Sets EOS, pad and BOS of a model's configs to the tokenizer's, as the Trainer does at the start of training.

    Refused: a tokenizer without a pad token, or with tokens that the model has no embedding for.
    """
    model = bare_model(policy)
    if processing_class.pad_token_id is None:
        expected = "a tokenizer with a pad token, to read prompts of several lengths at once"
        step = "set tokenizer.pad_token to the token that the model was trained with"
        raise InputError(expected, "tokenizer.pad_token=None", step)
    largest = max(processing_class.get_vocab().values())
    # FSMT has a vocabulary for each language, and its tokenizer has both.
    two = getattr(model.config, "tgt_vocab_size", None) is not None
    rows = max(embedding_rows(model)) if two else min(embedding_rows(model))
    if largest >= rows:
        found = f"one with token {largest} ({processing_class.convert_ids_to_tokens(largest)!r})"
        step = "call model.resize_token_embeddings(len(tokenizer)), or pass the model's own tokenizer"
        expected = f"a tokenizer of the {rows} tokens that {type(model).__name__} has embeddings for"
        raise InputError(expected, found, step)
    align_special_tokens(model, processing_class)


def embedding_rows(model: PreTrainedModel) -> tuple[int, int]:
    """For how many tokens a model has input embeddings, and output embeddings."""
    inputs: Any = model.get_input_embeddings()
    outputs: Any = model.get_output_embeddings()
    return len(inputs.weight), len(outputs.weight)


def unknown_ids(model: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that the model could write and the tokenizer cannot read: rows that fill up its output matrix.

    They are never sampled: each would be an empty text, whatever the reward says of it.
    """
    known = set(processing_class.get_vocab().values())
    unknown = tuple(token for token in range(embedding_rows(model)[1]) if token not in known)
    if unknown:
        _logger.info("%d ids that the tokenizer does not have are never sampled", len(unknown))
    return unknown
