"""Trains one tiny run without a break, then again and again with SIGKILL at random moments and a resume after each.

Every training is a real process, forked from this one, which has imported everything and computed nothing with more
than one thread. A kill comes either at a random time, or at a random operation on the files of the output folder,
which is where saves are in the middle of something.

    python -m tests.ppo.checkpoints.killed_runs FOLDER KILLS SEED

writes FOLDER/result.json: `straight`, digests of the state at the end of the unbroken run, and `kills`, a list of
what was done to each of the others and the digests that its resume ended with.
Leaves out: judging them (test_restart.py).
"""

import hashlib
import io
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

from tests.tiny_models import tiny_t5
from trl_rewards_plugin.cards.callback import ModelCardCallback
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring.callbacks import TrainingCurvesCallback
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.runs.checkpoints import checkpoints

STEPS, SAVE_STEPS = 5, 2  # the last epoch ends early, and the last checkpoint is of step 5
WORDS = ["the cat", "a big dog eats old fish .", "snow", "she reads a long book", "we go home now ."]
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


class DriftingReward:
    """Length against its running mean, with noise from both of Python's usual generators: all of it must come back."""

    __name__ = "drifting"

    def __init__(self):
        self.count, self.mean = 0, 0.0

    def __call__(self, completions, **kwargs):
        scores = []
        for text in completions:
            self.count += 1
            self.mean += (len(text) - self.mean) / self.count
            scores.append((len(text) - self.mean) / 10 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        return scores

    def state_dict(self):
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state):
        self.count, self.mean = state["count"], state["mean"]


class _Report(TrainerCallback):
    """Sends the number of every step through a pipe, the first one when training begins."""

    def __init__(self, pipe: int):
        self.pipe = pipe

    def on_train_begin(self, args, state, control, **kwargs):
        os.write(self.pipe, bytes([state.global_step]))

    def on_step_end(self, args, state, control, **kwargs):
        os.write(self.pipe, bytes([state.global_step]))


def make_trainer(model: Path, folder: Path, pipe: int) -> Seq2SeqPPOTrainer:
    args = Seq2SeqPPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_mini_batches=2,
        num_ppo_epochs=2,
        response_length=5,
        max_steps=STEPS,
        learning_rate=1e-3,
        adaptive_kl=True,
        save_steps=SAVE_STEPS,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
    )
    rows = [{"prompt": WORDS[row % 5]} for row in range(12)]  # three rollouts an epoch
    trainer = Seq2SeqPPOTrainer(
        str(model), DriftingReward(), args, train_dataset=Dataset.from_list(rows), callbacks=[_Report(pipe)]
    )
    for drawing in (TrainingCurvesCallback, ModelCardCallback):  # takes longer than the training here
        trainer.remove_callback(drawing)
    return trainer


def digests(trainer: Seq2SeqPPOTrainer) -> dict[str, str]:
    """A digest of each thing that the next rollout would hang on."""
    parts = {
        "weights": {name: value.numpy().tobytes().hex() for name, value in trainer.model.state_dict().items()},
        "optimizer": _bytes(trainer.optimizer.state_dict()),
        "schedule": trainer.lr_scheduler.state_dict(),
        "kl_coef": trainer.kl_coef,
        "episodes": trainer.episodes,
        "reward": trainer.reward_funcs[0].state_dict(),
        "random": [str(random.getstate()), str(np.random.get_state()), str(torch.get_rng_state().tolist())],
        "rewards logged": [row["objective/scores"] for row in trainer.state.log_history if "objective/scores" in row],
    }
    return {name: hashlib.sha256(repr(part).encode()).hexdigest()[:16] for name, part in parts.items()}


def _bytes(state: dict) -> str:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue().hex()


def kill_at_file_operation(folder: Path, number: int) -> None:
    """Has this process kill itself at the given operation on a file or folder below `folder`."""
    seen = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal seen
        if event in FILE_EVENTS and isinstance(args[0], str | os.PathLike) and str(folder) in os.fspath(args[0]):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def count_file_operations(folder: Path) -> Callable[[], int]:
    """Counts what `kill_at_file_operation` counts."""
    seen = [0]

    def hook(event: str, args: tuple) -> None:
        if event in FILE_EVENTS and isinstance(args[0], str | os.PathLike) and str(folder) in os.fspath(args[0]):
            seen[0] += 1

    sys.addaudithook(hook)
    return lambda: seen[0]


def train(model: Path, folder: Path, pipe: int, result: Path, operation: int | None) -> None:
    """One training, resumed where there is something to resume from; in the child."""
    trainer = make_trainer(model, folder, pipe)
    operations = count_file_operations(folder)
    if operation is not None:
        kill_at_file_operation(folder, operation)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=bool(checkpoints(folder)))
    seconds = time.perf_counter() - start
    result.write_text(json.dumps({"digests": digests(trainer), "seconds": seconds, "operations": operations()}))


def run(
    model: Path, folder: Path, result: Path, seconds: float | None = None, operation: int | None = None
) -> tuple[int, list[int]]:
    """Trains in a forked process, killed after `seconds` of training or at a file operation.

    Returns:
        Its wait status, and the steps that it reported.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            train(model, folder, writing, result, operation)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    steps = list(os.read(reading, 1))  # training has begun, or the child is gone
    if seconds is not None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0 and select.select([reading], [], [], left)[0]:
            if not (more := os.read(reading, 1)):
                break
            steps += more
        os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 64):
        steps += more
    os.close(reading)
    return os.waitpid(child, 0)[1], steps


def main() -> None:
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    chance = random.Random(seed)
    model = tiny_t5(root / "model")
    status, _ = run(model, root / "straight", root / "straight.json")
    assert status == 0, "the unbroken run failed"
    straight = json.loads((root / "straight.json").read_text())
    done = []
    for number in range(kills):
        folder, result = root / f"killed{number}", root / f"killed{number}.json"
        by_clock = number % 2 == 0
        moment = (
            {"seconds": chance.random() * straight["seconds"]}
            if by_clock
            else {"operation": chance.randint(1, straight["operations"])}
        )
        killed, steps = run(model, folder, result, **moment)
        left = [path.name for path in checkpoints(folder)]
        again, resumed_steps = run(model, folder, result)
        done.append(
            {
                "moment": moment,
                "killed": os.WIFSIGNALED(killed) and os.WTERMSIG(killed) == signal.SIGKILL,
                "steps": steps,
                "checkpoints": left,
                "resumed_at": resumed_steps[0] if resumed_steps else None,
                "failed": again != 0,
                "digests": json.loads(result.read_text())["digests"] if result.is_file() else None,
                "folders": sorted(path.name for path in folder.iterdir() if path.is_dir()),
            }
        )
    result = {"straight": straight["digests"], "seconds": straight["seconds"], "kills": done}
    (root / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
