"""SharedClassifier: one loaded text classifier, texts in, logits out, used by as many rewards as read its labels."""

import copy
import os
from typing import Any

import torch
from torch import Tensor
from transformers import Pipeline, PreTrainedModel

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.places import check_model_name
from trl_rewards_plugin.rewards.inference import devices, forward, loading
from trl_rewards_plugin.rewards.inference.classifier_rules import position_limit
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock

LONGEST = 512  # tokens of a text that are read at most where max_length is not given


class SharedClassifier:
    """A sequence classifier and its tokenizer, loaded on first use; picklable; thread-safe.

    `device` None: where a loaded model is, else this process's own. `memo` None: token ids are not kept for others.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        revision: str | None,
        device: Any,
        dtype: Any,
        offload: str | None = None,
        trust_remote_code: bool = False,
    ):
        self.device = devices.as_device(device)
        self.dtype = devices.as_dtype(dtype)
        self.offload = offload
        self.memo: forward.EncodingMemo | None = None
        given = resolve(os.fspath(tokenizer) if isinstance(tokenizer, os.PathLike) else tokenizer)
        self._tokenizer_source = given
        self.tokenizer_name = given if isinstance(given, str) else None  # not the model's own, nor passed in loaded
        if self.tokenizer_name is not None:
            check_model_name(self.tokenizer_name, "a tokenizer: a folder, or an id on the Hub")
        self._lock = ForkSafeLock()
        self._model: Any = None
        self._tokenizer: Any = None
        if isinstance(model, PreTrainedModel):
            self.source: Any = model
            self.named = loading.Source(model.config.name_or_path or type(model).__name__, None, trust_remote_code)
            found = f"a loaded {type(model).__name__}"
            if tokenizer is None:
                step = "pass tokenizer=, or the model's name instead"
                raise InputError("a tokenizer beside a loaded model", f"{found} alone", step)
            if revision is not None or dtype is not None or offload == "disk":
                expected = "revision, dtype and offload='disk' only for models that are loaded here"
                found = f"{found} with revision={revision!r}, dtype={dtype!r}, offload={offload!r}"
                step = "load or convert the model as you want it and leave them out, or pass the model's name"
                raise InputError(expected, found, step)
            self.config = model.config
        elif isinstance(model, str | os.PathLike):
            self.source = resolve(os.fspath(model))
            self.named = loading.Source(self.source, revision, trust_remote_code)
            self.config = loading.read_config(self.named)
        else:
            step = "pass the name that AutoModelForSequenceClassification.from_pretrained takes"
            if isinstance(model, Pipeline):
                step = "pass what it holds: ClassifierReward(pipe.model, tokenizer=pipe.tokenizer, label=...)"
            raise InputError("model as a Hub id, a folder, or a loaded PreTrainedModel", type(model).__name__, step)
        self.is_named = isinstance(self.source, str) and isinstance(given, str | None)  # so that a file can name both
        self.forward = forward.BatchedForward(self.named.name, self.dtype)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for two classifiers that would load the same weights to the same place."""
        given = (self.source, self._tokenizer_source)
        same = [one if isinstance(one, str | None) else id(one) for one in given]
        return (*same, self.named, self.device, self.dtype, self.offload)

    def place(self, device: Any) -> None:
        """Runs on `device` from now on; weights in memory are dropped. InputError for a model passed in loaded."""
        if not isinstance(self.source, str):
            step = "move the model itself, or pass its name"
            raise InputError("a model that is loaded here", f"a loaded {type(self.source).__name__}", step)
        with self._lock:
            self.device = devices.as_device(device)
            self._model = None

    def load(self) -> tuple[Any, Any]:
        """The model, in eval mode on its device, and the tokenizer; loaded on the first call, or after offloading.

        InputError for a checkpoint without trained head, a tokenizer without words or pad token, or an absent device.
        """
        with self._lock:
            if self._lock.was_broken():
                self._tokenizer = None  # a thread that is not in this process was reading with it
            if self._model is None:
                self._model = self._load_model()
                self._place = self._model.device
            if self._tokenizer is None:
                given = self._tokenizer_source
                tokenizer = loading.load_tokenizer(given, self.named, self.config)
                loading.check_tokens(self._model, tokenizer, self.named.name)
                # Truncation is a setting of the object, which others who hold it may change meanwhile.
                self._encoder = copy.deepcopy(given) if tokenizer is given else tokenizer
                self._fingerprint = forward.fingerprint(self._encoder)
                self._tokenizer = tokenizer
            if self._model.config.pad_token_id is None:  # by which decoder-only classifiers find a text's last token
                self._model.config.pad_token_id = self._tokenizer.pad_token_id
            if self.offload == "cpu":
                self._model.to(self._place)
            return self._model, self._tokenizer

    def _load_model(self) -> Any:
        loaded = not isinstance(self.source, str)
        if loaded and self.device is None:
            return self.source.eval()
        place = self.device or devices.own_device()
        devices.check_present(place)
        model = self.source if loaded else loading.load_classifier(self.named, self.config, self.dtype)
        return model.to(place).eval()

    def _max_tokens(self, max_length: int | None, pair: bool) -> int:
        """Tokens read: `max_length` (InputError if no text fits), else up to 512, as positions and tokenizer allow."""
        _, tokenizer = self.load()
        if max_length is None:
            return int(min(LONGEST, position_limit(self.config) or LONGEST, tokenizer.model_max_length))
        specials = tokenizer.num_special_tokens_to_add(pair)
        if max_length <= specials:
            around = f"{self.named.name} reads around {'a pair' if pair else 'a text'}"
            expected = f"max_length above {specials}, the special tokens that {around}"
            raise InputError(expected, str(max_length), "raise it, or leave it out")
        return max_length

    def logits(
        self, texts: list[str], prompts: list[str] | None, max_length: int | None, batch_size: int | None
    ) -> Tensor:
        """Raw outputs for N texts, or for N (prompt, text) pairs: (N, L) float32 on the CPU, L labels.

        A repeated row is scored once. Texts that are too long lose tokens at the end (of the longer of a pair first).
        """
        pairs = zip(texts, [None] * len(texts) if prompts is None else prompts, strict=True)
        rows, places = forward.unique_rows(list(pairs))
        if not rows:
            return torch.zeros(0, len(self.config.id2label))
        parts = []
        # A fast tokenizer keeps its truncation setting in one shared object, so it is under the lock as well.
        with self._lock:
            try:
                limit = self._max_tokens(max_length, prompts is not None)
                for window in forward.windows(rows):
                    model, tokenizer = self.load()
                    memo = self.memo or forward.EncodingMemo()
                    encoded = memo.encode(self._encoder, self._fingerprint, window, limit)
                    parts.append(self.forward.logits(model, tokenizer, encoded, batch_size))
            finally:
                if self.offload is not None and self._model is not None:
                    device = self._model.device
                    self._model = self._model.to("cpu") if self.offload == "cpu" else None
                    devices.free_memory(device)
        return torch.cat(parts)[torch.tensor(places)]

    def __getstate__(self) -> dict[str, Any]:
        # Weights travel only where they cannot be loaded again, that is, with a model that was passed in.
        return {**self.__dict__, "_model": None, "_tokenizer": None, "_encoder": None}
