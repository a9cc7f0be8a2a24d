"""Callbacks of a run: progress bars for a terminal, a pipe or a notebook, its curves, and its log as a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from trl_rewards_plugin.charts.curves import save_reward_curve
from trl_rewards_plugin.runs.layout import LOG, REWARD_CURVE
from trl_rewards_plugin.runs.writing import append_log, write_log

_BAR, _COUNT, _TIME = "{desc} {percentage:3.0f}%|{bar:20}|", "{n_fmt}/{total_fmt}", "[{elapsed}, {remaining} left]"
SHOWN = {"reward": "objective/scores", "kl": "objective/kl", "length": "tokens/responses_len_mean"}


def answers_bar(total: int, *, hidden: bool) -> "tqdm[Any]":
    """A bar over the responses of a measurement, which disappears when it is full."""
    layout = f"{_BAR} response {_COUNT} {_TIME}"
    return tqdm(total=total, desc="Measuring", leave=False, disable=hidden, bar_format=layout)


class CallAtEnd(TrainerCallback):
    """Calls a function when training has ended; to go first, since trackers close their run at that point."""

    def __init__(self, last: Callable[[], None]):
        self.last = last

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last()


class RolloutProgressCallback(TrainerCallback):
    """Replaces the Trainer's bar, which counts steps and prints every log as a dictionary."""

    def __init__(self, episodes_per_step: int):
        self.episodes_per_step = episodes_per_step
        self.bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            layout = f"{_BAR} episode {_COUNT}{{postfix}} {_TIME}"
            done, total = (steps * self.episodes_per_step for steps in (state.global_step, state.max_steps))
            self.bar = tqdm(total=total, initial=done, desc="PPO", unit="episode", bar_format=layout)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step * self.episodes_per_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.bar is not None and logs and "objective/scores" in logs:
            self.bar.set_postfix_str(", ".join(f"{name} {logs[key]:.2f}" for name, key in SHOWN.items()))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class TrainingCurvesCallback(TrainerCallback):
    """Draws `reward_curve.png` in the output folder at every save and at the end."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            save_reward_curve(state.log_history, Path(args.output_dir) / REWARD_CURVE)

    on_train_end = on_save


class LogFileCallback(TrainerCallback):
    """Keeps `log.jsonl` in the output folder equal to the Trainer's log; a resume removes the rows it will repeat."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            Path(args.output_dir).mkdir(parents=True, exist_ok=True)
            write_log(Path(args.output_dir) / LOG, state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            append_log(Path(args.output_dir) / LOG, state.log_history[-1:])
