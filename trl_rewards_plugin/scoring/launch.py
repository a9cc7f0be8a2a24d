"""Processes: the processes that a launcher started, and what they exchange. Knows nothing of rewards."""

import os
from typing import Any


class Processes:
    """This process among those that a launcher started; alone without one."""

    def __init__(self) -> None:
        self.index, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from accelerate import PartialState

            state = PartialState()
            self.index, self.count = state.process_index, state.num_processes

    @property
    def first(self) -> bool:
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in their order."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[Any] = gather_object([value])
        return gathered

    def from_first(self, value: Any) -> Any:
        """What the first process gave."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]
