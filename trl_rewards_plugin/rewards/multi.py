"""MultiClassifierReward: several rewards, weighted, as one reward function. One forward pass per distinct model.

Leaves out: normalisation and clipping of scores.
"""

import math
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.base import Reward
from trl_rewards_plugin.rewards.callables import CallableReward
from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.combine import weighted_sum
from trl_rewards_plugin.rewards.presets import preset_entries, preset_name
from trl_rewards_plugin.rewards.scores import RewardScores
from trl_rewards_plugin.rewards.texts import as_texts, paired_texts

__all__ = ["MultiClassifierReward", "RewardScores"]


class MultiClassifierReward(Reward):
    """Weighted sum of K rewards, which never travels without its parts.

    ```python
    reward = MultiClassifierReward([acceptability, neutrality, no_repetition], weights=[1.0, 0.5, 0.2])
    ```

    Rewards on one model share one loaded copy (those passed here are made to) and one forward pass. Called by TRL, it
    logs each component's mean as `rewards/<component>/mean` (TRL's own form) and each component as a column of the
    completions table. Callables get completions and prompts as they came, texts or chat messages.

    A call fails with `InputError` where a component's scores are not N finite numbers, Nones or NaNs, and with
    `RuntimeError` where a component fails; its name and a text are in the message.

    Args:
        rewards: K `ClassifierReward`s and plain callables `f(prompts=, completions=, **columns)`, mixed. A callable
            returns one float or None per completion; None and NaN are left out of the sum, as in TRL.
        weights: K finite floats; 1.0 each if omitted.
        name: Of letters, digits, `_`, `-`, `.`; by default the components' names joined by `_`.

    Attributes:
        rewards: The K rewards as they were given.
        weights: Their K weights.

    Raises:
        InputError: no rewards, two of one name, a count that differs, a weight that is not finite, a model that is
            not wrapped. All before anything is loaded.
    """

    def __init__(
        self,
        rewards: Sequence[ClassifierReward | Callable[..., Any]],
        weights: Sequence[float] | None = None,
        *,
        name: str | None = None,
    ):
        if not isinstance(rewards, list | tuple) or not rewards:
            raise InputError("a list of one or more rewards", repr(rewards), "for a single one, pass [reward]")
        self.rewards = list(rewards)
        self._parts = [one if isinstance(one, ClassifierReward) else CallableReward(one) for one in rewards]
        names = [part.name for part in self._parts]
        _check_unique(names)
        self.weights = _checked_weights(weights, len(names))
        super().__init__("_".join(names) if name is None else name)
        first_of: dict[tuple, ClassifierReward] = {}
        for part in self._parts:
            if isinstance(part, ClassifierReward):
                part.share_model(first_of.setdefault(part.forward_key[0], part))

    @classmethod
    def from_preset(cls, preset: str | PathLike[str]) -> "MultiClassifierReward":
        """The reward of a preset's name ("article", "tiny") or of a YAML file; its name is the preset's or the file's.

        The file holds `rewards:`, a list of mappings with `model` and `label`, and if wanted `weight`, `name`, and
        any other argument of `ClassifierReward`.

        Raises:
            InputError: an unknown preset or key, or a file that is missing or of another form.
        """
        entries = preset_entries(preset)
        weights = [entry.pop("weight", 1.0) for entry in entries]
        _checked_weights(weights, len(entries))
        return cls([ClassifierReward(**entry) for entry in entries], weights, name=preset_name(preset))

    def _scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> RewardScores:
        plain = as_texts(completions)
        plain_prompts = paired_texts(prompts, plain)
        logits: dict[tuple, Tensor] = {}
        scores = []
        for part in self._parts:
            if isinstance(part, CallableReward):
                scores.append(part.values(plain, completions, prompts, columns))
                continue
            if part.forward_key not in logits:
                logits[part.forward_key] = part.logits(plain, plain_prompts)
            scores.append(part.pick(logits[part.forward_key], plain))
        total = weighted_sum(torch.stack(scores, dim=1), torch.tensor(self.weights))
        return RewardScores(total, dict(zip(self.component_names(), scores, strict=True)))

    def __call__(self, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **kwargs: Any) -> list[float]:
        scores = self._scores(completions, prompts, kwargs)
        log_metric, log_extra = kwargs.get("log_metric"), kwargs.get("log_extra")
        for name, values in scores.components.items():
            # A mean over nothing is NaN and would poison the average of the logging step.
            if log_metric is not None and not values.isnan().all():
                log_metric(f"rewards/{name}/mean", values.nanmean().item())
            if log_extra is not None:
                log_extra(name, values.tolist())
        return scores.total.tolist()

    __call__.__doc__ = Reward.__call__.__doc__

    def component_names(self) -> list[str]:
        return [part.name for part in self._parts]

    def component(self, name: str) -> Reward:
        return self._parts[self._component_index(name)]

    component.__doc__ = Reward.component.__doc__

    def describe(self) -> list[dict[str, Any]]:
        """One dict a component, with its weight; see `Reward.describe`."""
        pairs = zip(self._parts, self.weights, strict=True)
        return [{**part.describe()[0], "weight": weight} for part, weight in pairs]

    def __repr__(self) -> str:
        return f"MultiClassifierReward({self._parts!r}, weights={self.weights!r}, name={self.name!r})"


def _check_unique(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            "rewards of different names, since each is a column of its own",
            f"{', '.join(repeated)} more than once in {', '.join(names)}",
            "pass name= to the ClassifierRewards, or rename the functions",
        )


def _checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    found = list(weights)
    if len(found) != count:
        raise InputError(f"{count} weights, one for each reward", f"{len(found)}: {found}", "give one weight a reward")
    for weight in found:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise InputError("finite numbers as weights", repr(weight), "replace it; 0.0 only reports a component")
    return [float(weight) for weight in found]
