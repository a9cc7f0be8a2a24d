"""MultiClassifierReward: several rewards as one reward function. Leaves out the maths of it (combining/)."""

import contextlib
import enum
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from os import PathLike, fspath
from os.path import abspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.preset_table import PRESETS
from trl_rewards_plugin.rewards.base import DESCRIBED, Reward, RewardScores
from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.combining.combination import Combination, training_progress
from trl_rewards_plugin.rewards.combining.combination_settings import FORMS
from trl_rewards_plugin.rewards.combining.constraints import START, Ascent, ascent_after, mixed
from trl_rewards_plugin.rewards.combining.running_statistics import Batch, RunningStatistics, used_scale
from trl_rewards_plugin.rewards.event_loop import running
from trl_rewards_plugin.rewards.files.file_content import exact_entry, preset_arguments, write_preset_file
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock
from trl_rewards_plugin.rewards.names import total_name
from trl_rewards_plugin.rewards.remote_reward import RemoteReward
from trl_rewards_plugin.rewards.texts import as_texts, paired_texts

_logger = logging.getLogger(__name__)
NO_SCALE = (
    "\nExpected: texts from which normalization='zscore' has learnt a scale for %s"
    "\nFound:    none seen by reward %r, so the scores count as they are"
    "\nNext:     save_preset() after training writes the scale; or set {'mean': m, 'scale': s}"
)
STARTS_ANEW = (
    "reward %r: training resumes at step %d, but what the reward had learnt (scale, multipliers) starts anew;"
    " pass callbacks=[RewardStateCallback(reward)] from the start, so that checkpoints keep it"
)
NONE_IN_A_SUM = (
    "reward %r: %r has on_failure='none', and a weighted_sum without it is another total, as if the text were worse or"
    " better; pass aggregation='weighted_mean'"
)

_Purpose = enum.Enum("_Purpose", "TRAINING EVALUATION SCORING")
"""What texts are scored for, which decides the scale and the weights."""


@dataclass(frozen=True)
class _Outcome:
    """What a combination, or a server, made of N texts; dicts by the name of a reward."""

    scores: RewardScores
    batches: list[Batch] = field(default_factory=list)  # for its running statistics; empty where nothing is learnt
    evaluation: Batch = field(default_factory=Batch)  # by which an evaluation normalised; empty elsewhere
    weights: dict[str, float] = field(default_factory=dict)  # of every reward with a schedule; of all for constraints
    passing: dict[str, Tensor] = field(default_factory=dict)  # of each reward with a gate which texts pass, (N,) bool
    ascent: Ascent | None = None  # its multipliers after this batch; None without constraints, and outside training
    inner: dict[str, "_Outcome"] = field(default_factory=dict)  # of each combination within, and each remote reward

    def log(self, columns: Mapping[str, Any], within: str = "") -> None:
        """As `RewardScores.log`, with what else is to be logged, and the combinations within."""
        self.scores.log(columns, within)
        log_metric = columns.get("log_metric") or (lambda name, value: None)
        for name, moments in self.evaluation.items():
            for what, value in zip(("mean", "std"), used_scale(moments), strict=True):
                log_metric(f"scale/{within}{name}/{what}", value)
        for name, weight in self.weights.items():
            log_metric(f"weight/{within}{name}", weight)
        for name, passing in self.passing.items():
            log_metric(f"gate/{within}{name}/passed", passing.float().mean().item())
        for name, ends in self.ascent.multipliers.items() if self.ascent else ():
            for end, multiplier in ends.items():
                log_metric(f"multiplier/{within}{name}/{end}", multiplier)
        for name, outcome in self.inner.items():
            outcome.log(columns, f"{within}{name}/")


class MultiClassifierReward(Reward):
    """Several rewards combined into one number per text, with every component beside the total.

    Each reward's scores are normalised, clipped, gated and weighted, in this order, and then aggregated; by default
    they are only weighted and added. Rewards on one model share one loaded copy and one forward pass; async callables
    run together while the others run. A call logs each raw component as TRL does, as `rewards/<component>/mean` and
    `/std` (of n - 1) and as a column of the completions table; those within another as `<combination>/<component>`.

    A call is training: it takes the batch into the running statistics, of all processes, then uses them, and follows
    `weight_schedule`; one that fails changes nothing. Within `frozen()` a call is evaluation, always at the same scale
    and weights. `score()` uses the statistics as they are, and the weights without schedule; in a distributed run it
    alone may be called in one process. Both leave constraints out, which are about means.

    Args:
        rewards: K rewards and functions (see `CallableReward`). None and NaN are left out of the total, as in TRL.
        weights: K finite floats, not all 0, or a dict by name; 1.0 each if omitted.
        name: Of letters, digits, `_`, `-`, `.`, and no component's; by default the components' names joined by `_`,
            and `<component>_total` for a single one.
        aggregation: "weighted_sum", "weighted_mean", "minimum", "geometric_mean" (of probabilities) or, for several
            judges of one question, "mean_minus_std". The formulas are in combining/aggregate.py.
        normalization: "zscore" for every reward: by the mean and standard deviation of its scores so far. Or a dict by
            name, with "zscore" or {"mean": m, "scale": s}, which is (score - m) / s. None leaves scores as they are.
        clip: None or (low, high), to which normalised scores are clipped. For every reward, or a dict by name.
        weight_schedule: By name, {progress: factor}: what the weight is multiplied with at global_step / max_steps,
            linear between the points and constant outside, for example {"length": {0.0: 0.0, 0.5: 1.0}}.
        only_if: By name, {reward: threshold}: this reward's score counts only for texts whose score by each reward
            named here, as that gave it, is at least the threshold, for example {"neutrality": {"acceptability": 0.0}}.
            The share of texts that pass is logged as `gate/<name>/passed`.
        floor: By name, what a text behind the gate gets in place of that score, before the weight; 0 if omitted.
        constraints: By name, {"min": m}, {"max": m} or both: a target for the mean raw score of that reward. In place
            of a weight it has a multiplier, which training raises while the target is missed and lowers while it is
            met (`multiplier/<name>/min` and `/max` in the log): see combining/constraints.py.
        disagreement_coef: Of mean_minus_std; 1 if omitted.

    Attributes:
        rewards: The K rewards as they were given.
        classifiers: Those among them and in combinations within, in order.

    Raises:
        InputError: no rewards, two of one name, a count that differs, a setting that does not fit, a model that is
            not wrapped, all before anything is loaded; in a call: scores that are not N finite numbers, Nones or NaNs.
        RuntimeError: in a call: a component failed; the cause is chained. Too little memory keeps its own error.
    """

    def __init__(
        self,
        rewards: Sequence[ClassifierReward | Callable[..., Any]],
        weights: Sequence[float] | Mapping[str, float] | None = None,
        *,
        name: str | None = None,
        aggregation: str = "weighted_sum",
        normalization: str | Mapping[str, Any] | None = None,
        clip: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
        weight_schedule: Mapping[str, Mapping[float, float]] | None = None,
        only_if: Mapping[str, Mapping[str, float]] | None = None,
        floor: Mapping[str, float] | None = None,
        constraints: Mapping[str, Mapping[str, float]] | None = None,
        disagreement_coef: float | None = None,
    ):
        if not isinstance(rewards, list | tuple) or not rewards:
            raise InputError("a list of one or more rewards", repr(rewards), "for a single one, pass [reward]")
        self.rewards = list(rewards)
        self._parts = [one if isinstance(one, Reward) else CallableReward(one) for one in rewards]
        names = self.component_names()
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            found = f"{', '.join(repeated)} more than once in {', '.join(names)}"
            step = "give each a name= (name: in a reward file); a function or partial has f.__name__ = 'other'"
            raise InputError("rewards with different names, since each gets its own column", found, step)
        settings = {"normalization": normalization, "clip": clip, "weight_schedule": weight_schedule}
        settings |= {"only_if": only_if, "floor": floor, "constraints": constraints}
        self._combination = Combination.checked(names, weights, aggregation, disagreement_coef, **settings)
        super().__init__(total_name("_".join(names), names) if name is None else name)
        if self.name in names:
            step = "pass another name=, or leave it out"
            raise InputError("a name that no component has, since trainers log the total under it", repr(name), step)
        self._statistics = RunningStatistics(self._combination.learnt)
        start = {name: dict.fromkeys(target, START) for name, target in self._combination.constraints.items()}
        self._ascent = Ascent(start, start)
        self._frozen = 0
        self._lock = ForkSafeLock()
        self._inner = {part.name: part for part in self._parts if isinstance(part, MultiClassifierReward)}
        self._start = self.state_dict()  # {} from the first training call on
        self._saved: tuple[str, dict[str, Any]] | None = None  # what makes this reward, and its state then
        self._warned = False  # of scores without a scale
        if aggregation == "weighted_sum" and len(names) > 1:
            for part in self._parts:
                if getattr(part, "on_failure", "stop") == "none":
                    _logger.warning(NONE_IN_A_SUM, self.name, part.name)
        self.classifiers: list[ClassifierReward] = []
        for one in self._parts:
            self.classifiers += [one] if isinstance(one, ClassifierReward) else getattr(one, "classifiers", [])
        first_of: dict[tuple[Any, ...], ClassifierReward] = {}
        for part in self.classifiers:
            changed = part.name in self._combination.normalization or part.name in self._combination.clip
            raw = part in self._parts and not changed
            if aggregation == "geometric_mean" and raw and part.score_type != "probability":
                found = f"score_type={part.score_type!r} in reward {part.name!r}"
                raise InputError("probabilities for geometric_mean", found, "build it with score_type='probability'")
            part.share(first_of.setdefault(part.forward_key[0], part), self.classifiers[0])

    @classmethod
    def from_preset(cls, preset: str | PathLike[str], *, allow_code: bool = True) -> "MultiClassifierReward":
        """The reward of a preset's name ("article", "tiny" ...) or of a YAML file: see files/file_content.py.

        Trust such a file like a script: the functions and metrics that it names are imported and run. A service that
        takes files from others sets `allow_code=False`, which refuses them unimported. InputError for any misfit.
        """
        reward = cls(**preset_arguments(preset, allow_code=allow_code))
        reward.came_from(preset)
        return reward

    def came_from(self, preset: str | PathLike[str]) -> None:
        """Remembers a preset or file that makes this very reward."""
        self._saved = fspath(preset) if fspath(preset) in PRESETS else abspath(preset), self.state_dict()

    @property
    def preset(self) -> str | None:
        """The preset or file from which `from_preset` makes this reward as it is now; None where there is none."""
        return self._saved[0] if self._saved and self._saved[1] == self.state_dict() else None

    def save_preset(self, path: str | PathLike[str]) -> None:
        """Writes the YAML file from which `from_preset` makes this reward again, Hub models with their commit.

        A z-score that has learnt a scale is written with that one, as fixed numbers, and a combination within as the
        file that it was read from or saved to. Not written are multipliers, nor `device`, `batch_size` and `offload`,
        which belong to the machine. InputError for a reward that no file can name (a lambda, a loaded model), another
        ending than .yaml or .yml, or over a file that it did not write.
        """
        rows = self._rows([exact_entry(part) for part in self._parts])
        for row, name in zip(rows, self.component_names(), strict=True):
            if (moments := self._statistics.moments.get(name)) and moments.count:
                row["normalization"] = dict(zip(("mean", "scale"), used_scale(moments), strict=True))
        content = {"name": self.name, "aggregation": self.aggregation, "rewards": rows}
        write_preset_file(Path(path), {**content, "disagreement_coef": self.disagreement_coef})
        self.came_from(path)

    def _rows(self, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = zip(entries, self.weights, self.component_names(), strict=True)
        return [{**entry, "weight": weight, **self._combination.settings(name)} for entry, weight, name in rows]

    @property
    def weights(self) -> list[float]:
        """The K weights, as they were given."""
        return list(self._combination.weights)

    @weights.setter
    def weights(self, weights: Any) -> None:
        anew = f"MultiClassifierReward(reward.rewards, weights={weights!r}, ...)"
        step = f"build it anew, with all else as before: {anew}"
        raise InputError("weights that stay as they were given, for runs to be comparable", "new weights", step)

    @property
    def aggregation(self) -> str:
        return self._combination.aggregation

    @property
    def disagreement_coef(self) -> float | None:
        return self._combination.disagreement_coef

    def __call__(self, /, completions: Any, prompts: Any = None, **kwargs: Any) -> list[float]:
        found = self._evaluate(completions, prompts, kwargs, _Purpose.TRAINING)
        step = getattr(kwargs.get("trainer_state"), "global_step", 0)
        if not self._frozen:
            if step and self._start and self.state_dict() == self._start:
                _logger.warning(STARTS_ANEW, self.name, step)
            self._start = {}
        self._learn(found)  # only now, where nothing failed
        found.log(kwargs)
        return found.scores.total.tolist()

    def _learn(self, found: _Outcome) -> None:
        self._statistics.learn(found.batches, found.evaluation)
        self._ascent = found.ascent or self._ascent
        for name, part in self._inner.items():
            part._learn(found.inner[name])

    def _scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> RewardScores:
        return self._evaluate(completions, prompts, columns, _Purpose.SCORING).scores

    def _evaluate(self, completions: Any, prompts: Any, columns: dict[str, Any], purpose: _Purpose) -> _Outcome:
        plain = as_texts(completions)
        if self._frozen and purpose is _Purpose.TRAINING:
            purpose = _Purpose.EVALUATION
        schedule = self._combination.weight_schedule
        targets, training = self._combination.constraints, purpose is _Purpose.TRAINING
        progress = training_progress(columns.get("trainer_state")) if training and (schedule or targets) else None
        components, inner = self._components(plain, completions, prompts, columns, purpose)
        batches = self._statistics.batches(components) if training else []
        moments, evaluation = self._statistics.after(batches), Batch()
        if purpose is _Purpose.EVALUATION:
            moments = evaluation = self._statistics.of_evaluation(components)
        if purpose is _Purpose.SCORING and not self._warned:
            unseen = [name for name, known in moments.items() if not known.count]
            self._warned = bool(unseen)
            if unseen:
                _logger.warning(NO_SCALE, ", ".join(unseen), self.name)
        passing = self._combination.passing(components)
        weights = dict(zip(components, self._combination.weights_at(progress), strict=True))
        moving, ascent, constants = {name: weights[name] for name in schedule}, None, dict[str, float]()
        if targets and progress is not None:
            parts = RunningStatistics(list(targets)).batches(components)
            ascent = ascent_after(self._ascent, targets, parts, progress)
            weights, constants = mixed(weights, targets, ascent)
            moving = weights
        raw = torch.stack(list(components.values()), dim=1)
        total = self._combination.total(raw, moments, list(weights.values()), passing, plain)
        for name, constant in constants.items():
            total = total + constant * ~components[name].isnan()
        return _Outcome(RewardScores(total, components), batches, evaluation, moving, passing, ascent, inner)

    def _components(
        self, plain: list[str], completions: Any, prompts: Any, columns: dict[str, Any], purpose: _Purpose
    ) -> tuple[dict[str, Tensor], dict[str, _Outcome]]:
        """Name -> raw scores (N,), in the order of the rewards; and what combinations and servers among them found."""
        plain_prompts = paired_texts(prompts, plain)
        functions = {part.name: part for part in self._parts if isinstance(part, CallableReward)}
        # All columns are asked for before anything is scored.
        calls = {name: part.prepared(completions, prompts, columns) for name, part in functions.items()}
        pending = {name: call for name, call in calls.items() if functions[name].is_async}
        scores: dict[str, Tensor] = {}
        inner: dict[str, _Outcome] = {}
        logits: dict[tuple[Any, ...], Tensor] = {}
        with running(pending) as futures:
            # Classifiers last: they take longest to load, and a server that cannot be reached shows before.
            for part in sorted(self._parts, key=lambda part: isinstance(part, ClassifierReward)):
                if isinstance(part, ClassifierReward):
                    if part.forward_key not in logits:
                        logits[part.forward_key] = part.logits(plain, plain_prompts)
                    scores[part.name] = part.pick(logits[part.forward_key], plain)
                elif isinstance(part, MultiClassifierReward):
                    found = part._evaluate(completions, prompts, columns, purpose)
                    scores[part.name], inner[part.name] = found.scores.total, found
                elif isinstance(part, RemoteReward):
                    served = part.served_scores(completions, prompts, columns)
                    scores[part.name], inner[part.name] = served.total, _Outcome(served)
                elif part.name not in pending:
                    scores[part.name] = part._own_scores(completions, prompts, columns)
            names = {future: name for name, future in futures.items()}
            for future in as_completed(names):
                scores[names[future]] = functions[names[future]].result(future, completions)
        return {name: scores[name] for name in self.component_names()}, inner

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within this block calls are evaluation: nothing is learnt, and scale and weights never move.

        A running z-score uses the mean and standard deviation known at the first evaluation (before training: of its
        own first batch), then and ever after. Weights are without `weight_schedule`, as in `score()`. They are logged
        as `scale/<name>/mean`, `/std` and `weight/<name>`. `RewardStateCallback` and `Seq2SeqPPOTrainer` do so.
        """
        with self._lock:
            self._frozen += 1
        try:
            yield
        finally:
            with self._lock:
                self._frozen -= 1

    def state_dict(self) -> dict[str, Any]:
        """The running statistics, those of evaluations, and multipliers, as JSON values; {} if nothing is learnt."""
        inner = {name: part.state_dict() for name, part in self._inner.items()}
        state = {
            "statistics": self._statistics.state_dict(),
            "evaluation": {name: asdict(moments) for name, moments in self._statistics.evaluation.items()},
            "constraints": asdict(self._ascent) if self._ascent.multipliers else {},
            "rewards": {k: v for k, v in inner.items() if v},
        }
        return {key: value for key, value in state.items() if value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; InputError for that of other components, normalisation or constraints."""
        if not isinstance(state, Mapping) or not set(state) <= {"statistics", "evaluation", "constraints", "rewards"}:
            raise InputError("what state_dict() gave", repr(state), "load the state of this reward")
        ascent, targets = state.get("constraints", {}), self._combination.constraints
        if {k: {*v} for k, v in ascent.get("multipliers", {}).items()} != {k: {*v} for k, v in targets.items()}:
            step = "load the state of a reward with the same constraints"
            raise InputError(f"multipliers of the constraints {targets}", f"{ascent}", step)
        self._statistics.load_state_dict(state.get("statistics", {}), state.get("evaluation"))
        self._ascent = Ascent(**ascent) if ascent else self._ascent
        for name, part in self._inner.items():
            part.load_state_dict(state.get("rewards", {}).get(name, {}))

    def component_names(self) -> list[str]:
        return [part.name for part in self._parts]

    def component(self, name: str) -> Reward:
        super().component(name)
        part = next(part for part in self._parts if part.name == name)
        if left_out := self._combination.settings(name):
            _logger.warning("component(%r) gives raw scores: %s of %s left out", name, ", ".join(left_out), self.name)
        return part

    def describe(self) -> list[dict[str, Any]]:
        return self._rows([{**dict.fromkeys(DESCRIBED), **part.entry()} for part in self._parts])

    def __repr__(self) -> str:
        own = {"aggregation": self.aggregation, **{key: getattr(self._combination, key) for key in FORMS}}
        own["disagreement_coef"] = self.disagreement_coef
        given = "".join(f", {key}={value!r}" for key, value in own.items() if value not in ("weighted_sum", {}, None))
        return f"MultiClassifierReward({self._parts!r}, weights={self.weights!r}, name={self.name!r}{given})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frozen": 0}
