"""A classifier and its tokenizer by name; what would score noise is refused. Leaves out: devices, configs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.integrations import deepspeed

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.fork_safe import ForkSafeLock

# transformers sets torch's default dtype and device while it loads: one model at a time in a process.
_LOADING = ForkSafeLock()


def load_classifier(source: str, revision: str | None, dtype: torch.dtype | None) -> Any:
    """The classifier of this name or folder, unsharded, in the CPU's memory; float32 where `dtype` is None.

    Raises:
        InputError: the checkpoint has no trained classification head.
    """
    with _LOADING, _unsharded():
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source, revision=revision, dtype=dtype or torch.float32, output_loading_info=True
        )
    # transformers fills a missing head with random numbers and only warns: a reward of noise.
    if info["missing_keys"]:
        raise InputError(
            f"a trained sequence classifier in {source}",
            f"no weights for {', '.join(sorted(info['missing_keys']))}",
            "name a checkpoint that was fine-tuned for text classification",
        )
    return model


def load_tokenizer(tokenizer: Any, source: str, revision: str | None) -> Any:
    """The tokenizer `tokenizer`, by name or as it is, or for None the one beside the model `source`.

    Raises:
        InputError: it has no words, or no pad token.
    """
    if tokenizer is None:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    elif isinstance(tokenizer, str):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    # Without tokenizer files transformers 5 silently builds a tokenizer of special tokens (and for DeBERTa two
    # more): most texts would read the same.
    if len(tokenizer) - len(tokenizer.all_special_ids) <= 2:
        raise InputError(
            f"tokenizer files beside the weights of {source}",
            f"a tokenizer of {len(tokenizer)} tokens, the special ones",
            "save the tokenizer into the same folder, or pass tokenizer=",
        )
    if tokenizer.pad_token_id is None:
        raise InputError(
            "a tokenizer with a pad token, to score texts of several lengths at once",
            f"none in the tokenizer of {source}",
            "pass tokenizer= one whose pad_token is the token that the classifier was trained with",
        )
    return tokenizer


def check_tokens(model: Any, tokenizer: Any, source: str) -> None:
    """Refuses a tokenizer with tokens that the classifier has no embedding for.

    Raises:
        InputError: names the first of them.
    """
    largest, rows = max(tokenizer.get_vocab().values()), len(model.get_input_embeddings().weight)
    if largest >= rows:
        raise InputError(
            f"a tokenizer of the {rows} tokens that {source} has embeddings for",
            f"one with token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r})",
            "pass the tokenizer that the classifier was trained with, or train it again after "
            "model.resize_token_embeddings(len(tokenizer))",
        )


@contextmanager
def _unsharded() -> Iterator[None]:
    """Within it ZeRO-3's config, which makes `from_pretrained` shard every model over the processes, is set aside.

    A judge is not the Trainer's model: nothing would gather its weights before a forward pass.
    """
    reference = deepspeed._hf_deepspeed_config_weak_ref
    config = None if reference is None else reference()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)
