"""RunningStatistics: moments of several rewards' scores over training, the same in every process and thread.

Leaves out: what is done with them (normalize.py) and when a call may change them (multi.py).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.combining.normalize import Moments, merged, moments_of
from trl_rewards_plugin.rewards.fork_safe import ForkSafeLock

Batch = dict[str, Moments]
"""Name -> moments of one batch of scores."""


class RunningStatistics:
    """One `Moments` a name. Picklable with its values; updates are atomic.

    Args:
        names: Names of the rewards that are watched.
    """

    def __init__(self, names: Sequence[str]):
        self._moments = {name: Moments() for name in names}
        self._lock = ForkSafeLock()

    @property
    def moments(self) -> Batch:
        """What has been learnt, by name."""
        return dict(self._moments)

    def batches(self, scores: Mapping[str, Tensor]) -> list[Batch]:
        """The moments of a batch of scores, name -> (N,); in a distributed run those of all processes, by rank.

        Every process ends with the same moments, so that all of them have to make the call.
        """
        if not self._moments:
            return []
        return _of_all_processes({name: moments_of(scores[name]) for name in self._moments})

    def after(self, batches: Sequence[Batch]) -> Batch:
        """What would be known once `batches` were learnt; nothing changes."""
        known = self.moments
        for batch in batches:
            known = {name: merged(seen, batch[name]) for name, seen in known.items()}
        return known

    def learn(self, batches: Sequence[Batch]) -> None:
        """Takes in `batches`."""
        with self._lock:
            self._moments = self.after(batches)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Name -> count, mean and m2, as JSON values."""
        return {name: moments.as_dict() for name, moments in self.moments.items()}

    def load_state_dict(self, state: Any) -> None:
        """Restores what `state_dict` gave.

        Raises:
            InputError: other names, or values that are no moments; then nothing changes.
        """
        names = list(self._moments)
        if not isinstance(state, Mapping) or set(state) != set(names):
            found = ", ".join(map(str, state)) if isinstance(state, Mapping) else repr(state)
            raise InputError(
                f"statistics of {', '.join(names) or 'no reward'}",
                found or "none",
                "load the state of a reward with the same components and normalization",
            )
        loaded = {name: _moments(name, state[name]) for name in names}
        with self._lock:
            self._moments = loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = ForkSafeLock()


def _moments(name: str, values: Any) -> Moments:
    numbers = values if isinstance(values, Mapping) else {}
    sound = set(numbers) == {"count", "mean", "m2"} and all(
        isinstance(value, int | float) and math.isfinite(value) for value in numbers.values()
    )
    if not sound or numbers["count"] < 0 or numbers["m2"] < 0:
        raise InputError(
            f"count, mean and m2 of reward {name!r} as finite numbers", repr(values), "load what state_dict() gave"
        )
    return Moments(**numbers)


def _of_all_processes(batch: Batch) -> list[Batch]:
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [batch]
    batches: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(batches, batch)
    return batches
