"""Texts -> numbers, with any metrics by name: this package's, reward presets, any evaluate module.

Leaves out: where the texts come from (`output_files.py`) and comparing two sides (`compare.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trl_rewards_plugin import metrics
from trl_rewards_plugin.errors import InputError, check_hub_name, did_you_mean

OWN = {"grammaticality": metrics.GRAMMATICALITY, "neutrality": metrics.NEUTRALITY}
LOAD_ARGUMENTS = ("config_name", "label", "module_type", "revision")
"""Of a metric's arguments, those that `evaluate.load` takes; the others are `compute`'s."""


@dataclass(frozen=True)
class Texts:
    """What is evaluated: N outputs, and what belongs to each.

    Attributes:
        outputs: N texts.
        prompts: N prompts, prefix included; None if only the outputs are known.
        sources: The prompts without their prefix.
        references: What outputs are compared with.
        columns: The data set's other columns.
    """

    outputs: Sequence[str]
    prompts: Sequence[str] | None
    sources: Sequence[str] | None
    references: Sequence[str] | None
    columns: Mapping[str, list[Any]]


@dataclass(frozen=True)
class Values:
    """One row of a result.

    Attributes:
        mean: The number for all texts together; None if none was scored.
        per_text: (N,), NaN for a text that was not scored; None if the metric has no number per text.
    """

    mean: float | None
    per_text: np.ndarray | None = None


class Measure(Protocol):
    """A loaded metric."""

    name: str

    def measure(self, texts: Texts) -> dict[str, Values]:
        """Row name -> values."""


def load_measures(
    names: Sequence[str], *, judge: str | None, arguments: Mapping[str, Mapping[str, Any]], given: Sequence[str]
) -> list[Measure]:
    """The metrics called `names`, loaded.

    A name is one of ours (grammaticality, neutrality), a reward preset or reward file (its total and components), or
    what `evaluate.load` takes.

    Args:
        judge: Config name of our metrics.
        arguments: Metric's name -> arguments of `evaluate.load` and `compute`.
        given: Which of "predictions", "references", "sources" there are.

    Raises:
        InputError: no such metric, one that is not for texts, one that needs what is not given, or arguments for a
            metric that is not asked for.
    """
    for name in arguments:
        if name not in names:
            step = f"{did_you_mean(name, names)}add it to the metrics, or leave its arguments out"
            raise InputError(f"arguments for a metric that is asked for: {', '.join(names)}", repr(name), step)
    if len(set(names)) < len(names) or not names:
        raise InputError("one or more metrics, each once", " ".join(names) or "none", "name each metric once")
    return [_load(name, judge, arguments.get(name, {}), given) for name in names]


def _load(name: str, judge: str | None, arguments: Mapping[str, Any], given: Sequence[str]) -> Measure:
    from trl_rewards_plugin.rewards.presets import PRESETS

    if name in PRESETS or name.endswith((".yaml", ".yml")):
        return RewardMeasure(name)
    load_arguments = {key: value for key, value in arguments.items() if key in LOAD_ARGUMENTS}
    compute_arguments = {key: value for key, value in arguments.items() if key not in LOAD_ARGUMENTS}
    if name in OWN and judge is not None:
        load_arguments.setdefault("config_name", judge)
    measure = ModuleMeasure(_load_module(name, load_arguments), compute_arguments, given)
    if name in OWN:  # ours accept empty lists, so wrong arguments fail before any outputs are generated
        measure.measure(Texts([], [], [], [], {}))
    return measure


def _load_module(name: str, arguments: Mapping[str, Any]) -> Any:
    import evaluate

    try:
        check_hub_name(OWN.get(name, name), "a metric: the name or folder of an evaluate module")
        return evaluate.load(OWN.get(name, name), **arguments)
    except InputError:
        raise
    # What evaluate raises for an unknown name, an unreachable Hub or a missing package.
    except (OSError, ImportError) as error:
        if name in OWN:
            judge = arguments.get("config_name", "default")
            raise InputError(
                f"a judge for {name}: default, tiny, or the Hub id or folder of a text classifier",
                f"{judge!r}: {' '.join(str(error).split())[:300]}",
                "check its name (config_name in --metric-kwargs) and the network, or take --preset tiny",
            ) from error
        known = ", ".join(OWN)
        step = "check the spelling and the network, or give the folder of an evaluate module"
        raise InputError(
            f"a metric: {known}, a reward preset or .yaml file, or what evaluate.load takes",
            f"{name!r}: {' '.join(str(error).split())[:300]}",
            f"{did_you_mean(name, OWN)}{step}"
            if not isinstance(error, ImportError)
            else "install the missing package",
        ) from error


class ModuleMeasure:
    """An evaluate module over texts.

    Numbers of its result are rows; a list of N numbers is a row as well, with its mean. A module that can leave its
    scores unaggregated (`use_aggregator`, as ROUGE has) is asked to.

    Raises:
        InputError: the module is not for texts, needs what is not given, or does not take one of the arguments.
    """

    def __init__(self, module: Any, arguments: Mapping[str, Any], given: Sequence[str]):
        self.name: str = module.name
        self._module = module
        options = module.features if isinstance(module.features, list) else [module.features]
        self._inputs = list(options[0])
        if not any(_is_text(option.get("predictions")) for option in options):
            raise InputError(
                "a metric of texts", f"{self.name}, whose predictions are {options[0].get('predictions')}",
                "name another metric",
            )  # fmt: skip
        missing = [name for name in self._inputs if name not in given]
        if missing:
            raise InputError(
                f"{', '.join(missing)} for the metric {self.name}",
                f"only {', '.join(given)}",
                "give a data set (--dataset) or leave this metric out",
            )
        # Some modules only take several references a text.
        self._several = "references" in self._inputs and not any(_is_text(option["references"]) for option in options)
        self._arguments = dict(arguments)
        parameters = inspect.signature(module._compute).parameters
        _check_arguments(self.name, self._arguments, parameters, self._inputs)
        if "use_aggregator" in parameters:
            self._arguments.setdefault("use_aggregator", False)

    def measure(self, texts: Texts) -> dict[str, Values]:
        """See `Measure`."""
        references: Any = texts.references
        if self._several and references is not None:
            references = [[reference] for reference in references]
        found = {"predictions": list(texts.outputs), "references": references, "sources": texts.sources}
        inputs = {name: found[name] for name in self._inputs}
        return self._rows(self._module.compute(**inputs, **self._arguments), len(texts.outputs))

    def _rows(self, result: Mapping[str, Any], count: int) -> dict[str, Values]:
        rows = {}
        scores: Any = result.get("scores")
        for key, value in result.items():
            if key == self.name and _is_number_list(scores, count):
                rows[key] = _values_of(scores)
            elif key == "scores" and self.name in result:
                continue  # the row above
            elif _is_number_list(value, count):
                rows[self._row_name(key)] = _values_of(value)
            elif _is_number(value):
                rows[self._row_name(key)] = Values(float(value))
        if not rows:
            step = "name another metric"
            raise InputError(f"numbers from the metric {self.name}", ", ".join(result) or "nothing", step)
        return rows

    def _row_name(self, key: str) -> str:
        return key if key.startswith(self.name) else f"{self.name} {key}"


def _check_arguments(
    name: str, arguments: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], inputs: Sequence[str]
) -> None:
    """Refuses before any output is generated what `compute` would refuse after all are."""
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [parameter for parameter in parameters if parameter not in inputs]
    for argument in arguments:
        if argument not in known:
            step = f"{did_you_mean(argument, known)}see what its compute takes"
            raise InputError(f"arguments of the metric {name}: {', '.join(known) or 'none'}", repr(argument), step)


class RewardMeasure:
    """A reward preset or reward file: the total, and each component before weighting."""

    def __init__(self, preset: str):
        from trl_rewards_plugin.rewards import MultiClassifierReward

        self._reward = MultiClassifierReward.from_preset(preset)
        self.name = self._reward.name

    def measure(self, texts: Texts) -> dict[str, Values]:
        """See `Measure`."""
        prompts = None if texts.prompts is None else list(texts.prompts)
        scores = self._reward.score(list(texts.outputs), prompts=prompts, **texts.columns)
        rows = {f"{self.name} reward": scores.total}
        if len(scores.components) > 1:
            rows |= {f"{self.name} {name}": values for name, values in scores.components.items()}
        return {name: _values_of(values.tolist()) for name, values in rows.items()}


def _values_of(numbers: Sequence[float | None]) -> Values:
    per_text = np.array(numbers, dtype=np.float64)
    scored = per_text[~np.isnan(per_text)]
    return Values(float(scored.mean()) if len(scored) else None, per_text)


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) == "string"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_number_list(value: Any, count: int) -> bool:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return isinstance(value, list) and len(value) == count and all(item is None or _is_number(item) for item in value)
