"""MetricReward: an `evaluate` metric or measurement as a reward function, one value per text."""

import os
from collections.abc import Mapping
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.base import TextReward
from trl_rewards_plugin.rewards.fork_safe import ForkSafeLock
from trl_rewards_plugin.rewards.names import clean_name
from trl_rewards_plugin.rewards.texts import column_texts


class MetricReward(TextReward):
    """A reward that asks an `evaluate` module for the value of each text.

    ```python
    MetricReward("rouge", "rougeL", references="summary", compute_kwargs={"use_stemmer": True})
    MetricReward("toxicity", "toxicity")  # weigh it below 0
    ```

    A module that answers with a list under `key` (toxicity, perplexity, BERTScore) is asked once for all texts; one
    that answers with a number (ROUGE, BLEU, exact match: a mean over what it is given) once for each text. The module
    is loaded on first use; the reward can be pickled where it is given by name, and called from several threads.

    Args:
        metric: What `evaluate.load` takes, or a loaded module.
        key: The value wanted of what the module's `compute` returns.
        references: The column with the reference of each text, or "prompt"; for modules that compare. A text whose
            reference is None scores None.
        compute_kwargs: Further arguments of `compute`.
        name: Name of the component; None is the key.

    Raises:
        InputError: when called: references missing or not wanted, an unknown key, or values of another count.
    """

    def __init__(
        self,
        metric: Any,
        key: str,
        *,
        references: str | None = None,
        compute_kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
    ):
        super().__init__(clean_name(str(key)) if name is None else name)
        self.metric = metric
        self.key = key
        self.references = references
        self.compute_kwargs = dict(compute_kwargs or {})
        self._lock = ForkSafeLock()
        self._module: Any = None
        self._one_by_one: bool | None = None

    def values(self, texts: list[str], prompts: Any, columns: dict[str, Any]) -> list[float | None]:
        wanted = list(range(len(texts)))
        given: list[str | None] = [None] * len(texts)
        if self.references is not None:
            given = column_texts(self.references, len(texts), prompts, columns, self.name)
            wanted = [index for index, reference in enumerate(given) if reference is not None]
        scores: list[float | None] = [None] * len(texts)
        if wanted:
            # A module keeps the batch that it computes on in itself.
            with self._lock:
                values = self._compute([texts[i] for i in wanted], [given[i] for i in wanted])
            for index, value in zip(wanted, values, strict=True):
                scores[index] = value
        return scores

    def entry(self) -> dict[str, Any]:
        if not isinstance(self.metric, str | os.PathLike):
            return super().entry()
        further = {"references": self.references, "compute_kwargs": self.compute_kwargs}
        given = {key: value for key, value in further.items() if value}
        return {"name": self.name, "metric": str(self.metric), "key": self.key, **given}

    def _compute(self, texts: list[str], references: list[str | None]) -> list[float]:
        if self._one_by_one is None:
            # With one text, a list with one value per text is told apart from any other list.
            self._one_by_one = not isinstance(self._ask(texts[:1], references[:1]), list)
        if self._one_by_one:
            return [self._ask([text], [one]) for text, one in zip(texts, references, strict=True)]
        values: list[float] = self._ask(texts, references)
        return values

    def _ask(self, texts: list[str], references: list[str | None]) -> Any:
        """The value under `key` for these texts: a number, or a list with one value per text."""
        module = self._loaded()
        inputs = self._inputs(module)
        arguments = {inputs[0]: texts} | ({inputs[1]: references} if len(inputs) > 1 else {})
        result = module.compute(**arguments, **self.compute_kwargs)
        if self.key not in result:
            raise InputError(
                f"a key of what metric {self._shown()} returns: {', '.join(result)}",
                repr(self.key),
                f"{did_you_mean(self.key, result)}use one of these",
            )
        value = result[self.key]
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, list) and len(value) != len(texts):
            raise InputError(
                f"a number, or {len(texts)} values, one for each text, under {self.key!r} of metric {self._shown()}",
                f"{len(value)} values",
                "name a key that holds one value per text",
            )
        return value

    def _inputs(self, module: Any) -> list[str]:
        """The module's own name for the texts, and "references" where it compares."""
        features = module.features[0] if isinstance(module.features, list) else module.features
        compares = "references" in features
        if compares != (self.references is not None):
            raise InputError(
                f"references= as the column that metric {self._shown()} compares with"
                if compares
                else f"no references for metric {self._shown()}, which compares with none",
                f"references={self.references!r}",
                "name the column of the data set, or 'prompt'" if compares else "leave references out",
            )
        texts = "predictions" if "predictions" in features else "data"
        if set(features) != {texts} | ({"references"} if compares else set()):
            raise InputError(
                "a metric of texts (predictions or data), with or without references",
                f"{self._shown()}, which wants {', '.join(features)}",
                "write a reward function that calls it",
            )
        return [texts, "references"] if compares else [texts]

    def _loaded(self) -> Any:
        if self._module is None:
            import evaluate

            loaded = isinstance(self.metric, evaluate.EvaluationModule)
            # In memory: two processes, or two rewards, would otherwise share one cache file.
            self._module = self.metric if loaded else evaluate.load(str(self.metric), keep_in_memory=True)
        return self._module

    def _shown(self) -> str:
        return repr(str(self.metric) if self._module is not self.metric else self.metric.name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_module": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = ForkSafeLock()

    def __repr__(self) -> str:
        return f"MetricReward({self.metric!r}, {self.key!r}, references={self.references!r})"
