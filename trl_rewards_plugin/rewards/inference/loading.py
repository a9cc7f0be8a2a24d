"""A classifier, its config and its tokenizer by name; what would score noise is refused."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.integrations import deepspeed
from transformers.utils import cached_file, find_adapter_config_file

from trl_rewards_plugin.errors import InputError, causes, is_unreached
from trl_rewards_plugin.places import check_model_name, what_to_do
from trl_rewards_plugin.rewards.inference.classifier_rules import EXPECTED, check_saved
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock

# transformers sets torch's default dtype and device while it loads: one model at a time in a process.
_LOADING = ForkSafeLock()
_HEAD = re.compile(r"(classifier|score|classification_head)(\.out_proj)?\.weight$")


@dataclass(frozen=True)
class Source:
    """Where a classifier comes from: a Hub id or folder, and what `from_pretrained` takes beside it."""

    name: str
    revision: str | None = None
    trust_remote_code: bool = False  # never None, at which transformers asks on standard input

    @property
    def options(self) -> dict[str, Any]:
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def read_config(source: Source) -> Any:
    """The classifier's configuration: cheap, and the first word from a Hub that refuses or cannot be reached."""
    check_model_name(source.name, EXPECTED)
    check_saved(Path(source.name))
    try:
        if _is_adapter(source):
            return _adapter_config(source)
        try:
            return AutoConfig.from_pretrained(source.name, **source.options)
        except OSError as error:  # one on the Hub that is not in the cache yet
            if "does not appear to have a file named" not in str(error) or not _is_adapter(source, ask_hub=True):
                raise
            return _adapter_config(source)
    except (OSError, ValueError) as error:
        found = f"{source.name!r}: {str(error).splitlines()[0]}"
        step = what_to_do(error, "check the spelling", source.name)
        # The root says why, or that it was not asked; the chain between is long, and says no more.
        if is_unreached(error):
            *_, root = causes(error)
            reason = "" if type(root).__name__ == "LocalEntryNotFoundError" else f" ({root})"
            raise InputError(EXPECTED, found + reason, step) from None
        raise InputError(EXPECTED, found, step) from error


def _is_adapter(source: Source, ask_hub: bool = False) -> bool:
    return find_adapter_config_file(source.name, revision=source.revision, local_files_only=not ask_hub) is not None


def _adapter_config(source: Source) -> Any:
    """The base model's configuration, with as many labels as the adapter's own head has."""
    base = _peft().PeftConfig.from_pretrained(source.name, revision=source.revision).base_model_name_or_path
    own = [shape[0] for name, shape in _adapter_shapes(source).items() if _HEAD.search(name)]
    config = AutoConfig.from_pretrained(base, trust_remote_code=source.trust_remote_code)
    if own and own[0] != len(config.id2label):
        config.id2label = {index: f"LABEL_{index}" for index in range(own[0])}
        config.label2id = {name: index for index, name in config.id2label.items()}
    config.name_or_path = base
    return config


def _adapter_shapes(source: Source) -> dict[str, list[int]]:
    """Name of a tensor in the base model -> its shape, of those that the adapter saves whole."""
    path = cached_file(source.name, "adapter_model.safetensors", revision=source.revision)
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        return {key.removeprefix("base_model.model."): file.get_slice(key).get_shape() for key in names}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("the package peft, which reads adapters", "not installed", "pip install peft") from error
    return peft


def load_classifier(source: Source, config: Any, dtype: torch.dtype | None) -> Any:
    """The unsharded classifier on the CPU, adapter merged; `dtype` None: float32. InputError for an untrained head."""
    is_adapter = _is_adapter(source)
    options: dict[str, Any] = {**source.options, "dtype": dtype or torch.float32, "output_loading_info": True}
    if is_adapter:
        options |= {"revision": None, "config": config, "ignore_mismatched_sizes": True}
    name = config.name_or_path if is_adapter else source.name
    with _LOADING, _unsharded():
        model, info = AutoModelForSequenceClassification.from_pretrained(name, **options)
        missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        if is_adapter:
            model = _peft().PeftModel.from_pretrained(model, source.name, revision=source.revision).merge_and_unload()
            missing -= set(_adapter_shapes(source))
    # transformers fills a missing head with random numbers and only warns: a reward of noise.
    if missing:
        found = f"no weights for {', '.join(sorted(missing))}"
        step = "name a checkpoint that was fine-tuned for text classification"
        raise InputError(f"a trained sequence classifier in {source.name}", found, step)
    return model


def load_tokenizer(tokenizer: Any, source: Source, config: Any) -> Any:
    """`tokenizer`, by name or loaded; None: the model's or its base's. InputError if it has no words or pad token."""
    if tokenizer is None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.name, **source.options)
        except (OSError, ValueError):
            if not _is_adapter(source):
                raise
            tokenizer = config.name_or_path
    if isinstance(tokenizer, str):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=source.trust_remote_code)
    # Without tokenizer files transformers 5 silently builds a tokenizer of special tokens (and for DeBERTa two
    # more): most texts would read the same.
    if len(tokenizer) - len(tokenizer.all_special_ids) <= 2:
        found = f"a tokenizer of {len(tokenizer)} tokens, the special ones"
        step = "save the tokenizer into the same folder, or pass tokenizer="
        raise InputError(f"tokenizer files beside the weights of {source.name}", found, step)
    if tokenizer.pad_token_id is None:
        found = f"none in the tokenizer of {source.name}"
        step = "pass tokenizer= one whose pad_token is the token that the classifier was trained with"
        raise InputError("a tokenizer with a pad token, to score texts of several lengths at once", found, step)
    return tokenizer


def check_tokens(model: Any, tokenizer: Any, source: str) -> None:
    """Refuses with an InputError a tokenizer with tokens that the classifier has no embedding for."""
    largest, rows = max(tokenizer.get_vocab().values()), len(model.get_input_embeddings().weight)
    if largest >= rows:
        expected = f"a tokenizer of the {rows} tokens that {source} has embeddings for"
        found = f"one with token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r})"
        again = "train it again after model.resize_token_embeddings(len(tokenizer))"
        raise InputError(expected, found, f"pass the tokenizer that the classifier was trained with, or {again}")


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
