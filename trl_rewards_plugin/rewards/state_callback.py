"""RewardStateCallback: a reward's running statistics in the checkpoints of any `transformers.Trainer`."""

import contextlib
from typing import Any

from transformers import TrainerCallback

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.multi import MultiClassifierReward

KEY = "reward_statistics"  # where the statistics stand under `stateful_callbacks` in a checkpoint's trainer_state.json


class RewardStateCallback(TrainerCallback):
    """Saves and restores running statistics and multipliers with the checkpoints, and freezes rewards in evaluations.

    ```python
    GRPOTrainer(..., reward_funcs=reward, callbacks=[RewardStateCallback(reward)])
    ```

    The statistics are part of `trainer_state.json`. Trainers that score in another process (TRL's AsyncGRPO) keep a
    copy of the reward there, which this callback does not see.

    Raises:
        InputError: no reward, one that is no `MultiClassifierReward`, or two of one name; in training, a checkpoint
            without statistics, or with those of another reward.
    """

    def __init__(self, *rewards: MultiClassifierReward):
        if not rewards:
            step = "pass those that the trainer was given: RewardStateCallback(reward)"
            raise InputError("the rewards whose statistics are to be saved", "no rewards", step)
        for one in rewards:
            if not isinstance(one, MultiClassifierReward):
                found = type(one).__name__
                raise InputError("MultiClassifierRewards", found, "pass the reward that the trainer was given")
        self.rewards = {reward.name: reward for reward in rewards}
        if len(self.rewards) != len(rewards):
            raise InputError("rewards with different names", ", ".join(r.name for r in rewards), "pass name= to them")
        self._evaluation = contextlib.ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        saved = state.stateful_callbacks.get(KEY)
        if saved is None and state.global_step > 0:
            step = "resume a run that had this callback, or leave it out to restart the statistics"
            found = f"none in that of step {state.global_step}"
            raise InputError("a checkpoint with the rewards' running statistics", found, step)
        if saved is not None and set(saved) != set(self.rewards):
            expected = f"statistics of {', '.join(self.rewards)}"
            raise InputError(expected, ", ".join(saved), "pass the rewards of that run")
        for name, state_dict in (saved or {}).items():
            self.rewards[name].load_state_dict(state_dict)
        if args.eval_on_start:
            self._freeze()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._record(state)
        if control.should_evaluate:
            self._freeze()

    on_epoch_end = on_step_end

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._evaluation.close()
        self._record(state)

    def _record(self, state: Any) -> None:
        """Into the state that the Trainer saves next, if at all: with what this step or evaluation fixed."""
        state.stateful_callbacks[KEY] = {name: reward.state_dict() for name, reward in self.rewards.items()}

    def _freeze(self) -> None:
        self._evaluation.close()
        for reward in self.rewards.values():
            self._evaluation.enter_context(reward.frozen())
