"""What every reward of this package has beside its scores: a name, TRL's call, TRL's module face."""

from collections.abc import Iterable, Sequence
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.rewards.names import check_name
from trl_rewards_plugin.rewards.reward_model import RewardModel
from trl_rewards_plugin.rewards.scores import RewardScores


class Reward:
    """A named reward function in TRL's protocol. Never an `nn.Module`: TRL would read `logits[:, 0]` off it."""

    def __init__(self, name: str):
        self.name = check_name(name)
        self.__name__ = self.name

    def __call__(self, completions: Sequence[Any], prompts: Sequence[Any] | None = None, **kwargs: Any) -> list[float]:
        """Total reward of each of N completions; TRL's reward function protocol.

        Args:
            completions: N texts, or N lists of chat messages, of which the last message's content is scored.
            prompts: N prompts in either form; only needed by rewards that read them.
            **kwargs: TRL's further arguments and dataset columns, N values each; handed on to plain callables.

        Returns:
            N floats, NaN where nothing scored the text.

        Raises:
            InputError: an item is not a text (its index is named), or the counts differ.
        """
        return self._scores(completions, prompts, kwargs).total.tolist()

    def score(self, texts: Sequence[Any], prompts: Sequence[Any] | None = None, **columns: Any) -> RewardScores:
        """Total (N,) and components, each (N,) and before weighting, of N texts; arguments and errors as in a call."""
        return self._scores(texts, prompts, columns)

    def _scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> RewardScores:
        # The columns come as one dict: a data set may well have a column named "texts".
        raise NotImplementedError

    def component_names(self) -> list[str]:
        """The K component names, in order."""
        return [self.name]

    def component(self, name: str) -> "Reward":
        """The component of this name alone, unweighted, as a reward function.

        Raises:
            InputError: no such component.
        """
        self._component_index(name)
        return self

    def _component_index(self, name: str) -> int:
        names = self.component_names()
        if name not in names:
            known = ", ".join(names)
            raise InputError(f"a component, one of {known}", repr(name), f"{did_you_mean(name, names)}use one of them")
        return names.index(name)

    def describe(self) -> list[dict[str, Any]]:
        """One dict a component, of plain values for YAML, JSON and model cards.

        Each has the keys name, model, label, weight, score_type, revision and pair (None where they do not apply), and
        beside them what an entry of a reward file says of it. `{"rewards": describe()}`, with the aggregation where
        it is not the default, is a reward file that `from_preset` reads back, as long as every component can be
        named: no lambdas, no loaded models. `save_preset` writes the exact revisions as well.
        """
        raise NotImplementedError

    def as_reward_model(
        self,
        processing_class: Any,
        *,
        prompts: Iterable[Any] | None = None,
        response_template: str | None = None,
        part: str = "response",
    ) -> RewardModel:
        """This reward as the `nn.Module` that TRL's PPOTrainer (up to 1.12) takes as `reward_model`.

        Args and errors: see `RewardModel`.
        """
        return RewardModel(self, processing_class, prompts=prompts, response_template=response_template, part=part)
