"""MetricReward: an `evaluate` metric or measurement as a reward function, one value per text."""

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

from trl_rewards_plugin.errors import InputError, check_choice
from trl_rewards_plugin.places import check_hub_name, what_to_do
from trl_rewards_plugin.rewards.base import TextReward
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock
from trl_rewards_plugin.rewards.names import clean_name
from trl_rewards_plugin.rewards.texts import column_references


class MetricReward(TextReward):
    """A reward that asks an `evaluate` module for the value of each text.

    ```python
    MetricReward("rouge", "rougeL", references="summary", compute_kwargs={"use_stemmer": True})
    MetricReward("toxicity", "toxicity")  # give it a negative weight
    ```

    A module that answers with a list under `key` (toxicity, perplexity, BERTScore) is asked once for all texts; one
    that answers with a number (BLEU, exact match: a mean over what it is given) once for each text. "rouge" is
    computed here and needs no Hub; any other module is found when the reward is built and loaded on first use. It can
    be pickled where the module is given by name, and called from several threads.

    Args:
        metric: What `evaluate.load` takes, or a loaded module.
        key: The value wanted of what the module's `compute` returns.
        references: The column with the reference of each text, or the list of its references, or "prompt"; for
            modules that compare. A text whose reference is None scores None.
        compute_kwargs: Further arguments of `compute`.
        name: None is the key.

    Raises:
        InputError: no such module; when called: references missing or not wanted, an unknown key or count of values.
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
        self.metric, self.key, self.references = metric, key, references
        self.compute_kwargs = dict(compute_kwargs or {})
        self._lock = ForkSafeLock()
        self._one_by_one: bool | None = None
        self._is_named = isinstance(metric, str | os.PathLike)
        self._shown = repr(str(metric) if self._is_named else getattr(metric, "name", metric))
        self._module: Any = None if self._is_named else metric
        if metric == "rouge" and not os.path.exists("rouge"):
            self._module = Rouge()
        elif self._is_named:
            _check_found(str(metric))

    def values(self, texts: list[str], prompts: Any, columns: dict[str, Any]) -> list[float | None]:
        given: Sequence[Any] = [None] * len(texts)
        if self.references is not None:
            given = column_references(self.references, len(texts), prompts, columns, self.name)
        wanted = [i for i, reference in enumerate(given) if self.references is None or reference is not None]
        if not wanted:
            return [None] * len(texts)
        with self._lock:  # a module keeps the batch that it computes on in itself
            values = self._compute([texts[i] for i in wanted], [given[i] for i in wanted])
        scores = dict(zip(wanted, values, strict=True))
        return [scores.get(index) for index in range(len(texts))]

    def entry(self) -> dict[str, Any]:
        if not self._is_named:
            return super().entry()
        further = {"references": self.references, "compute_kwargs": self.compute_kwargs}
        given = {key: value for key, value in further.items() if value}
        return {"name": self.name, "metric": str(self.metric), "key": self.key, **given}

    def _compute(self, texts: list[str], references: list[Any]) -> list[float]:
        if self._one_by_one is None:
            # With one text, a list with one value per text is told apart from any other list.
            first = self._ask(texts[:1], references[:1])
            self._one_by_one = not isinstance(first, list)
            if self._one_by_one:
                return [first, *self._compute(texts[1:], references[1:])]
        if self._one_by_one:
            return [self._ask([text], [one]) for text, one in zip(texts, references, strict=True)]
        values: list[float] = self._ask(texts, references)
        return values

    def _ask(self, texts: list[str], references: list[Any]) -> Any:
        """The value under `key` for these texts: a number, or a list with one value per text."""
        if self._module is None:
            import evaluate

            # In memory: two processes, or two rewards, would otherwise share one cache file.
            self._module = evaluate.load(str(self.metric), keep_in_memory=True)
        arguments = dict(zip(self._inputs(), (texts, references), strict=False))
        result = self._module.compute(**arguments, **self.compute_kwargs)
        check_choice(f"key in what metric {self._shown} returns,", self.key, result)
        value = result[self.key]
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, list) and len(value) != len(texts):
            expected = f"a number, or {len(texts)} values, one for each text, under {self.key!r} of {self._shown}"
            raise InputError(expected, f"{len(value)} values", "name a key that holds one value per text")
        return value

    def _inputs(self) -> list[str]:
        """The module's own name for the texts, and "references" where it compares."""
        features = self._module.features
        features = features[0] if isinstance(features, list) else features
        compares = "references" in features
        if compares != (self.references is not None):
            expected, step = f"no references for metric {self._shown}, which uses none", "leave them out"
            if compares:
                expected = f"references= as the column that metric {self._shown} compares with"
                step = "name the column of the data set, or 'prompt'"
            raise InputError(expected, f"references={self.references!r}", step)
        inputs = ["predictions" if "predictions" in features else "data", *(["references"] if compares else [])]
        if set(features) != set(inputs):
            expected = "a metric of texts (predictions or data), with or without references"
            found = f"{self._shown}, which wants {', '.join(features)}"
            raise InputError(expected, found, "write a reward function that calls it")
        return inputs

    def __getstate__(self) -> dict[str, Any]:
        stays = isinstance(self._module, Rouge) or not self._is_named
        return {**self.__dict__, "_module": self._module if stays else None}


def _check_found(name: str) -> None:
    """Finds the module's script, here or on the Hub; none of it runs yet."""
    from evaluate.loading import evaluation_module_factory

    expected = "a metric: the name or folder of an evaluate module"
    check_hub_name(name, expected)
    try:
        evaluation_module_factory(name)
    except (OSError, ImportError) as error:
        found = f"{name!r}: {' '.join(str(error).split())[:300]}"
        step = "check the spelling and the network, or give the folder of the module"
        raise InputError(expected, found, what_to_do(error, step)) from error


class Rouge:
    """What `evaluate.load("rouge")` computes, without aggregating: a list of F-measures for each type."""

    name = "rouge"
    features = MappingProxyType(dict.fromkeys(("predictions", "references"), SimpleNamespace(dtype="string")))

    def compute(
        self,
        predictions: list[str],
        references: list[Any],
        rouge_types: Sequence[str] | None = None,
        use_stemmer: bool = False,
        use_aggregator: bool = False,
        tokenizer: Callable[[str], list[str]] | None = None,
    ) -> dict[str, list[float]]:
        from rouge_score.rouge_scorer import RougeScorer

        types = list(rouge_types or ("rouge1", "rouge2", "rougeL", "rougeLsum"))
        own = None if tokenizer is None else SimpleNamespace(tokenize=tokenizer)
        scorer = RougeScorer(types, use_stemmer=use_stemmer, tokenizer=own)
        pairs = zip(predictions, references, strict=True)
        scores = [scorer.score_multi(refs if isinstance(refs, list) else [refs], text) for text, refs in pairs]
        return {key: [one[key].fmeasure for one in scores] for key in types}

    _compute = compute
