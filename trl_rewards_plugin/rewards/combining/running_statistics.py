"""RunningStatistics: moments of several rewards' scores over training, the same in every process and thread.

Leaves out: what is done with them (normalize.py) and when a call may change them (multi.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.combining.normalize import Moments, merged, moments_of
from trl_rewards_plugin.rewards.inference.fork_safe import ForkSafeLock

Batch = dict[str, Moments]  # name -> moments of one batch of scores


class RunningStatistics:
    """One `Moments` per name, and those that evaluations keep to. Picklable with its values; updates are atomic."""

    def __init__(self, names: Sequence[str]):
        self.moments: Batch = {name: Moments() for name in names}
        self._evaluation: Batch = {}
        self._lock = ForkSafeLock()

    def batches(self, scores: Mapping[str, Tensor]) -> list[Batch]:
        """The moments of a batch of scores, name -> (N,); in a distributed run those of all processes, by rank.

        Every process ends with the same moments, so that all of them have to make the call.
        """
        if not self.moments:
            return []
        own = {name: moments_of(scores[name]) for name in self.moments}
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
            return [own]
        batches: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(batches, own)
        return batches

    def after(self, batches: Sequence[Batch]) -> Batch:
        """What would be known once `batches` were learnt; nothing changes."""
        return _merged(self.moments, batches)

    def learn(self, batches: Sequence[Batch]) -> None:
        with self._lock:
            self.moments = self.after(batches)

    def of_evaluation(self, scores: Mapping[str, Tensor]) -> Batch:
        """The moments that every evaluation uses: those known at the first one, or its own where none were.

        Nothing changes. Of `scores`, name -> (N,), those of all processes count, each of which has to make the call.
        """
        if self._evaluation:
            return dict(self._evaluation)
        if all(moments.count for moments in self.moments.values()):
            return dict(self.moments)
        own = _merged({name: Moments() for name in self.moments}, self.batches(scores))
        return {name: moments if moments.count else own[name] for name, moments in self.moments.items()}

    def keep_for_evaluation(self, moments: Batch) -> None:
        """Fixes what `of_evaluation` gave for this evaluation and all later ones."""
        with self._lock:
            self._evaluation = dict(moments)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Name -> count, mean and m2, as JSON values."""
        return {name: asdict(moments) for name, moments in self.moments.items()}

    def evaluation_state_dict(self) -> dict[str, dict[str, Any]]:
        """Likewise the moments of evaluations; empty before the first one."""
        return {name: asdict(moments) for name, moments in self._evaluation.items()}

    def load_state_dict(self, state: Any, evaluation: Any = None) -> None:
        """Restores what `state_dict` and `evaluation_state_dict` gave; InputError and no change for anything else."""
        loaded = self._checked(state)
        loaded_evaluation = self._checked(evaluation) if evaluation else {}
        with self._lock:
            self.moments, self._evaluation = loaded, loaded_evaluation

    def _checked(self, state: Any) -> Batch:
        names = list(self.moments)
        if not isinstance(state, Mapping) or set(state) != set(names):
            found = ", ".join(map(str, state)) if isinstance(state, Mapping) else repr(state)
            step = "load the state of a reward with the same components and normalization"
            raise InputError(f"statistics of {', '.join(names) or 'no reward'}", found or "none", step)
        for name, values in state.items():
            numbers = values if isinstance(values, Mapping) else {}
            finite = all(isinstance(value, int | float) and math.isfinite(value) for value in numbers.values())
            known = set(numbers) == {"count", "mean", "m2"}
            if not known or not finite or numbers["count"] < 0 or numbers["m2"] < 0:
                expected = f"count, mean and m2 of reward {name!r} as finite numbers"
                raise InputError(expected, repr(values), "load what state_dict() gave")
        return {name: Moments(**state[name]) for name in names}


def _merged(known: Batch, batches: Sequence[Batch]) -> Batch:
    for batch in batches:
        known = {name: merged(seen, batch[name]) for name, seen in known.items()}
    return dict(known)
