"""SharedClassifier: one loaded text classifier, used by as many rewards as read its labels.

Texts in, logits out. Knows nothing of labels, weights or rewards. Loads on first use; picklable; thread-safe.
"""

import os
import threading
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
)

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.batching import token_batches, unique_rows

LONGEST = 512
"""Tokens of a text that are read at most where max_length is not given."""

# Families that count positions from the pad token's index on: the first `pad_token_id + 1` of
# `max_position_embeddings` are never used, so that RoBERTa's 514 take 512 tokens.
_OFFSET_POSITIONS = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


def own_device() -> torch.device:
    """This process's own accelerator (by LOCAL_RANK under a launcher, else the current one), or the CPU."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not torch.accelerator.is_available():
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK", -1))
    # A launcher may also show each process a single device; then the rank does not index it.
    within = 0 <= rank < torch.accelerator.device_count()
    return torch.device(accelerator.type, rank if within else torch.accelerator.current_device_index())


def position_limit(config: Any) -> int | None:
    """Tokens that the model's position embeddings allow; None where the config names no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.model_type in _OFFSET_POSITIONS:
        pad = getattr(config, "pad_token_id", None)
        positions -= (1 if pad is None else pad) + 1
    return positions


class SharedClassifier:
    """A sequence classifier and its tokenizer.

    Args:
        model: Hub id, folder, or a loaded `PreTrainedModel`, which is used as it is, but in eval mode.
        tokenizer: Its name or object; None is the model's own. Required with a loaded model.
        revision, dtype: For models loaded here; dtype defaults to float32, whatever the checkpoint holds.
        device: None is this process's own device, and a loaded model's present one.

    Raises:
        InputError: a loaded model without its tokenizer, or with a revision or dtype.
        OSError: of huggingface_hub or transformers, where the config cannot be read.
    """

    def __init__(self, model: Any, tokenizer: Any, revision: str | None, device: Any, dtype: Any):
        self.revision = revision
        self.device = None if device is None else torch.device(device)
        self.dtype = _as_dtype(dtype)
        self._tokenizer_source = os.fspath(tokenizer) if isinstance(tokenizer, os.PathLike) else tokenizer
        self._lock = threading.RLock()
        self._model: Any = None
        self._tokenizer: Any = None
        if isinstance(model, PreTrainedModel):
            self.source: Any = model
            self.model_id = model.config.name_or_path or type(model).__name__
            self._check_loaded(tokenizer, revision, dtype)
            self.config = model.config
        elif isinstance(model, str | os.PathLike):
            self.source = self.model_id = os.fspath(model)
            self.config = AutoConfig.from_pretrained(self.source, revision=revision)
        else:
            raise InputError(
                "model as a Hub id, a folder, or a loaded PreTrainedModel",
                f"{type(model).__name__}",
                "pass the name that AutoModelForSequenceClassification.from_pretrained takes",
            )

    def _check_loaded(self, tokenizer: Any, revision: str | None, dtype: Any) -> None:
        found = f"a loaded {type(self.source).__name__}"
        if tokenizer is None:
            raise InputError(
                "a tokenizer beside a loaded model", f"{found} alone", "pass tokenizer=, or the model's name instead"
            )
        if revision is not None or dtype is not None:
            raise InputError(
                "revision and dtype only for models that are loaded here",
                f"{found} with revision={revision!r}, dtype={dtype!r}",
                "load or convert the model as you want it and leave both out",
            )

    @property
    def key(self) -> tuple:
        """Equal for two classifiers that would load the same weights to the same place."""
        same = self.source if isinstance(self.source, str) else id(self.source)
        tokenizer = self._tokenizer_source
        tokenizer = tokenizer if isinstance(tokenizer, str | None) else id(tokenizer)
        return same, tokenizer, self.revision, self.device, self.dtype

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def load(self) -> tuple[Any, Any]:
        """The model, in eval mode on its device, and the tokenizer; loaded on the first call only.

        Raises:
            InputError: the checkpoint has no trained classification head, or the tokenizer no words or no pad token.
        """
        with self._lock:
            if self._model is None:
                self._model = self._load_model()
            if self._tokenizer is None:
                self._tokenizer = self._load_tokenizer()
            return self._model, self._tokenizer

    def _load_tokenizer(self) -> Any:
        tokenizer = self._tokenizer_source
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(self.source, revision=self.revision)
        elif isinstance(tokenizer, str):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        # Without tokenizer files transformers 5 silently builds a tokenizer of special tokens (and for DeBERTa two
        # more): most texts would read the same.
        if len(tokenizer) - len(tokenizer.all_special_ids) <= 2:
            raise InputError(
                f"tokenizer files beside the weights of {self.model_id}",
                f"a tokenizer of {len(tokenizer)} tokens, the special ones",
                "save the tokenizer into the same folder, or pass tokenizer=",
            )
        if tokenizer.pad_token_id is None:
            raise InputError(
                "a tokenizer with a pad token, to score texts of several lengths at once",
                f"none in the tokenizer of {self.model_id}",
                "pass tokenizer= one whose pad_token is the token that the classifier was trained with",
            )
        return tokenizer

    def _load_model(self) -> Any:
        if not isinstance(self.source, str):
            model = self.source if self.device is None else self.source.to(self.device)
            return model.eval()
        model, info = AutoModelForSequenceClassification.from_pretrained(
            self.source, revision=self.revision, dtype=self.dtype or torch.float32, output_loading_info=True
        )
        # transformers fills a missing head with random numbers and only warns: a reward of noise.
        if info["missing_keys"]:
            raise InputError(
                f"a trained sequence classifier in {self.model_id}",
                f"no weights for {', '.join(sorted(info['missing_keys']))}",
                "name a checkpoint that was fine-tuned for text classification",
            )
        return model.to(self.device or own_device()).eval()

    def max_tokens(self, max_length: int | None) -> int:
        """Tokens read of a text: `max_length`, else what positions and tokenizer allow, at most 512."""
        if max_length is not None:
            return max_length
        _, tokenizer = self.load()
        return min(LONGEST, position_limit(self.config) or LONGEST, tokenizer.model_max_length)

    def logits(
        self, texts: list[str], prompts: list[str] | None, max_length: int | None, batch_size: int | None
    ) -> Tensor:
        """Raw outputs for N texts, or for N (prompt, text) pairs: (N, L) float32 on the CPU, L labels.

        A repeated row is scored once; batches hold texts of like length. Neither changes a text's logits beyond
        float rounding. Texts that are too long lose tokens at the end (of the longer of a pair first).
        """
        rows, places = unique_rows([(text, None if prompts is None else prompts[i]) for i, text in enumerate(texts)])
        if not rows:
            return torch.zeros(0, len(self.config.id2label))
        # A fast tokenizer keeps its truncation setting in one shared object, so it is under the lock as well.
        with self._lock:
            model, tokenizer = self.load()
            own = [text for text, _ in rows]
            first, second = (own, None) if prompts is None else ([prompt or "" for _, prompt in rows], own)
            encoded = tokenizer(first, second, truncation=True, max_length=self.max_tokens(max_length))
            lengths = [len(ids) for ids in encoded["input_ids"]]
            batches = token_batches(lengths, batch_size)
            parts = [self._forward(model, tokenizer, encoded, batch) for batch in batches]
        order = torch.tensor([index for batch in batches for index in batch])
        # New tensors from here on: those made in inference mode could not enter a caller's loss.
        batched = torch.cat(parts)
        logits = torch.empty_like(batched)
        logits[order] = batched
        return logits[torch.tensor(places)]

    @staticmethod
    def _forward(model: Any, tokenizer: Any, encoded: Any, batch: list[int]) -> Tensor:
        rows = [{key: values[index] for key, values in encoded.items()} for index in batch]
        inputs = DataCollatorWithPadding(tokenizer)(rows).to(model.device)
        # A trainer may call us inside its autocast: the judge keeps the precision that it was loaded in.
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
            return model(**inputs).logits.float().cpu()

    def __getstate__(self) -> dict[str, Any]:
        # Weights travel only where they cannot be loaded again, that is, with a model that was passed in.
        return {**self.__dict__, "_lock": None, "_model": None, "_tokenizer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()


def _as_dtype(dtype: Any) -> torch.dtype | None:
    if dtype is None:
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError("dtype as a floating torch.dtype or its name", repr(dtype), "for example dtype='bfloat16'")
    return found
