"""Texts -> numbers, with any metrics by name: this package's, reward presets, any evaluate module."""

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from trl_rewards_plugin import metrics
from trl_rewards_plugin.errors import InputError, did_you_mean, is_unreached
from trl_rewards_plugin.places import check_hub_name, is_slip
from trl_rewards_plugin.preset_table import ENDINGS, PRESETS
from trl_rewards_plugin.rewards.metric_reward import Rouge

if TYPE_CHECKING:
    from trl_rewards_plugin.recipes.data import HeldOut

OWN = {"grammaticality": metrics.GRAMMATICALITY, "neutrality": metrics.NEUTRALITY}
JUDGED = ("grammaticality", "neutrality")
"""Those of them that ask a judge, and so have one row of their name and one of `share_above`."""
_METRIC = f"a metric: {', '.join(OWN)}, a reward preset or .yaml file, or what evaluate.load takes"
LOAD_ARGUMENTS = ("config_name", "label", "module_type", "revision")
"""Of a metric's arguments, those that `evaluate.load` takes; the others are `compute`'s."""

# One row of a result: a number for all texts together, or (N,) one per text, NaN where it was not scored.
Values: TypeAlias = float | np.ndarray


def check_metrics(
    names: Sequence[str], arguments: Mapping[str, Mapping[str, Any]], given: Sequence[str]
) -> list[str] | None:
    """Refuses of `load_measures`'s arguments what shows without torch; returns the table's rows, None if unknown."""
    for name, given_to in arguments.items():
        if not isinstance(given_to, Mapping):
            step = f"write {json.dumps({name: {'NAME': given_to}})}, with the name of the argument"
            raise InputError(f"the arguments of the metric {name} by name", repr(given_to), step)
        if name not in names:
            step = f"{did_you_mean(name, names)}add it to the metrics, or leave its arguments out"
            raise InputError(f"arguments for a metric that is asked for: {', '.join(names)}", repr(name), step)
    if len(set(names)) < len(names) or not names:
        raise InputError("one or more metrics, each once", " ".join(names) or "none", "name each metric once")
    rows = [_known_rows(name, arguments.get(name, {}), given) for name in names]
    return None if None in rows else [row for known in rows for row in known or ()]


def _known_rows(name: str, arguments: Mapping[str, Any], given: Sequence[str]) -> list[str] | None:
    if name in PRESETS:
        parts = [entry["name"] for entry in PRESETS[name]]
        return [f"{name} {part}" for part in ("reward", *(parts if len(parts) > 1 else ()))]
    if name in JUDGED:
        return [name, f"{name} share_above"]
    if name.endswith(ENDINGS) or name in OWN:
        return None
    if name == "rouge" and not os.path.exists(name):
        return _load(name, None, arguments, given).rows
    check_hub_name(name, _METRIC)
    # The metrics of `evaluate` itself have names of one part too, but none that is this like one of
    # these; the presets are words of their own, and for them the Hub is asked.
    slips = [known for known in (*OWN, "rouge", *PRESETS) if is_slip(name, known)]
    places = [f"evaluate-{kind}/{name}" for kind in ("metric", "measurement", "comparison")]
    if not slips or os.path.exists(name):
        return None
    found = repr(name)
    for place in places if slips[0] in PRESETS else ():
        from trl_rewards_plugin.hub.remote import lookup_failure

        failure = lookup_failure(place, "space")
        if failure is None:
            return None
        if is_unreached(failure):
            found += "; the Hub is not reached"
            break
    raise InputError(_METRIC, found, f"{did_you_mean(name, slips)}check the spelling")


def load_measures(
    names: Sequence[str], *, judge: str | None, arguments: Mapping[str, Mapping[str, Any]], given: Sequence[str]
) -> "list[Measure]":
    """The metrics called `names`, loaded: ours (config name `judge`), reward presets and files, any `evaluate` module.

    `arguments`: metric's name -> arguments of `evaluate.load` and `compute`; `given`: which of "predictions",
    "references", "sources" there are. InputError for no such metric, and what `ModuleMeasure` refuses.
    """
    return [_load(name, judge, arguments.get(name, {}), given) for name in names]


def _load(name: str, judge: str | None, arguments: Mapping[str, Any], given: Sequence[str]) -> "Measure":
    if name in PRESETS or name.endswith(ENDINGS):
        return RewardMeasure(name)
    load_arguments = {key: value for key, value in arguments.items() if key in LOAD_ARGUMENTS}
    if name in OWN and judge is not None:
        load_arguments.setdefault("config_name", judge)
    module = _load_module(name, load_arguments)
    compute_arguments = {key: value for key, value in arguments.items() if key not in LOAD_ARGUMENTS}
    measure = ModuleMeasure(module, compute_arguments, given)
    if name in OWN or isinstance(module, Rouge):  # quick on one text, so wrong arguments fail here too
        measure.rows = list(measure.measure([""], references=[""]))
    return measure


def _load_module(name: str, arguments: Mapping[str, Any]) -> Any:
    if name == "rouge" and not arguments and not os.path.exists(name):  # without the Hub
        return Rouge()
    import evaluate

    try:
        return evaluate.load(OWN.get(name, name), **arguments)
    except InputError as error:  # of the judge, whose name may be the metric's own default
        if "config_name" in arguments:
            raise
        step = f"""or name another judge: --metric_kwargs '{{"{name}": {{"config_name": "tiny"}}}}'"""
        raise InputError(error.expected, error.found, f"{error.next_step}, {step}") from error
    # What evaluate raises for an unknown name, an unreachable Hub or a missing package.
    except (OSError, ImportError) as error:
        if name in OWN:
            expected = f"a judge for {name}: default, tiny, or the Hub id or folder of a text classifier"
            found = arguments.get("config_name", "default")
            step = "check its name (config_name in --metric-kwargs) and the network, or take --preset tiny"
        else:
            expected, found, near = _METRIC, name, did_you_mean(name, [*OWN, "rouge", *PRESETS])
            step = f"{near}check the spelling and the network, or give the folder of an evaluate module"
            step = "install the missing package" if isinstance(error, ImportError) else step
        raise InputError(expected, f"{found!r}: {' '.join(str(error).split())[:300]}", step) from error


class ModuleMeasure:
    """An evaluate module over texts; `rows`: the names of its rows, where they are known.

    Numbers of its result are rows; a list of N numbers is a row as well, with its mean. A module that can leave its
    scores unaggregated (`use_aggregator`, as ROUGE has) is asked to. InputError for one that is not for texts, needs
    what is not `given`, or does not take one of `arguments`.
    """

    def __init__(self, module: Any, arguments: Mapping[str, Any], given: Sequence[str]):
        self.name: str = module.name
        self.rows: list[str] | None = None
        self._module = module
        options = module.features if isinstance(module.features, list) else [module.features]
        self._inputs = list(options[0])
        texts = [[key for key, kind in option.items() if getattr(kind, "dtype", "") == "string"] for option in options]
        if not any("predictions" in keys for keys in texts):
            found = f"{self.name}, whose predictions are {options[0].get('predictions')}"
            raise InputError("a metric of texts", found, "name another metric")
        if missing := [name for name in self._inputs if name not in given]:
            step = "give a data set (--dataset), name a --reference_column, or leave this metric out"
            raise InputError(f"{', '.join(missing)} for the metric {self.name}", f"only {', '.join(given)}", step)
        # Some modules only take several references a text.
        self._several = "references" in self._inputs and not any("references" in keys for keys in texts)
        parameters = inspect.signature(module._compute).parameters
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        known = [parameter for parameter in parameters if parameter not in self._inputs]
        unknown = [] if takes_any else [argument for argument in arguments if argument not in known]
        if unknown:  # `compute` would refuse them after all outputs are generated
            step = f"{did_you_mean(unknown[0], known)}see what its compute takes"
            expected = f"arguments of the metric {self.name}: {', '.join(known) or 'none'}"
            raise InputError(expected, repr(unknown[0]), step)
        self._arguments = ({"use_aggregator": False} if "use_aggregator" in parameters else {}) | dict(arguments)

    def measure(
        self, outputs: Sequence[str], held_out: "HeldOut | None" = None, references: Sequence[Any] | None = None
    ) -> dict[str, Values]:
        """Row name -> values of N outputs."""
        given: dict[str, Any] = {"predictions": list(outputs)}
        if held_out is not None:
            given["sources"] = held_out.sources
        if references is not None:
            given["references"] = [[reference] for reference in references] if self._several else references
        inputs = {name: given[name] for name in self._inputs}
        result = self._module.compute(**inputs, **self._arguments)
        rows: dict[str, Values] = {}
        for key, value in result.items():
            if key == "scores" and self.name in result:
                continue  # they are the values of that row
            row = key if key.startswith(self.name) else f"{self.name} {key}"
            has_scores = key == self.name and _is_number_list(result.get("scores"), len(outputs))
            found = result["scores"] if has_scores else value
            if _is_number_list(found, len(outputs)):
                rows[row] = np.array(found, dtype=np.float64)
            elif _is_number(found):
                rows[row] = float(found)
        if not rows:
            step = "name another metric"
            raise InputError(f"numbers from the metric {self.name}", ", ".join(result) or "nothing", step)
        return rows


class RewardMeasure:
    """A reward preset or reward file: the total, and each component before weighting."""

    def __init__(self, preset: str):
        from trl_rewards_plugin.rewards import MultiClassifierReward

        self._reward = MultiClassifierReward.from_preset(preset)
        self.name = self._reward.name
        parts = self._reward.component_names()
        self.rows = [f"{self.name} {name}" for name in ("reward", *(parts if len(parts) > 1 else ()))]

    def measure(
        self, outputs: Sequence[str], held_out: "HeldOut | None" = None, references: Sequence[Any] | None = None
    ) -> dict[str, Values]:
        """Row name -> values of N outputs; a reward reads its own columns, not the `references`."""
        given = {} if held_out is None else {"prompts": held_out.prompts, **held_out.columns}
        scores = self._reward.score(list(outputs), **given)
        values = [scores.total, *scores.components.values()]  # of a single component the total alone
        return {name: np.asarray(one, dtype=np.float64) for name, one in zip(self.rows, values, strict=False)}


Measure: TypeAlias = ModuleMeasure | RewardMeasure


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_number_list(value: Any, count: int) -> bool:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return isinstance(value, list) and len(value) == count and all(item is None or _is_number(item) for item in value)
