"""Fits a classifier over hours of a busy CPU: a killed run resumes at its last checkpoint and ends as if never killed.

Batches hold texts of like lengths, so that little is padding; AdamW with linear warm-up and decay. Leaves out: what
the loss is, which the caller gives; GPUs.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

BUCKET = 20  # batches that are sorted by length together
WARM_UP = 0.06  # share of all steps
REPORTED_STEPS = 25
CHECKPOINT_SECONDS = 180


@dataclass(frozen=True)
class Fit:
    """How to fit: texts of a step, passes over all, highest learning rate, seed of order and dropout, precision."""

    batch: int
    epochs: int
    learning_rate: float
    seed: int
    bf16: bool
    checkpoint: Path


def precision(bf16: bool) -> AbstractContextManager:
    """Matrix products in bfloat16 or float32; weights, losses and gradients of weights stay float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)


def length_batches(lengths: Sequence[int], batch: int, rng: random.Random) -> list[list[int]]:
    """Every row once, in shuffled batches of rows of like lengths."""
    rows = list(range(len(lengths)))
    rng.shuffle(rows)
    batches = []
    for start in range(0, len(rows), batch * BUCKET):
        bucket = sorted(rows[start : start + batch * BUCKET], key=lambda row: lengths[row])
        batches += [bucket[at : at + batch] for at in range(0, len(bucket), batch)]
    rng.shuffle(batches)
    return batches


@dataclass
class Progress:
    """Of a fit, over all its resumptions: steps done, minutes spent, what was said after each epoch."""

    done: int = 0
    minutes: float = 0.0
    lines: list[str] = field(default_factory=list)


def fit(
    model: PreTrainedModel,
    lengths: Sequence[int],
    loss: Callable[[list[int]], torch.Tensor],
    how: Fit,
    after_epoch: Callable[[], str],
) -> list[str]:
    """Trains the parameters of `model` that require gradients, in place.

    The checkpoint is left for the caller to remove once the model is saved.

    Args:
        lengths: (N,) length of each text, in any unit.
        loss: rows of the batch -> scalar; called with `model` in training mode, under `how`'s precision.
        after_epoch: says how good the model is now, in a line.

    Returns:
        The log's key lines: one an epoch, and how long all took.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=0.01, fused=True)
    epochs = [length_batches(lengths, how.batch, random.Random(f"{how.seed} {epoch}")) for epoch in range(how.epochs)]
    steps = [rows for epoch in epochs for rows in epoch]
    scheduler = get_linear_schedule_with_warmup(optimizer, int(WARM_UP * len(steps)), len(steps))
    torch.manual_seed(how.seed)
    state = State(model, optimizer, scheduler)
    progress = state.load(how.checkpoint) if how.checkpoint.exists() else Progress()
    spent, began, saved, seen = progress.minutes, time.monotonic(), time.monotonic(), []
    for rows in steps[progress.done :]:
        model.train()
        with precision(how.bf16):
            value = loss(rows)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        seen.append(value.item())
        progress.done += 1
        progress.minutes = spent + (time.monotonic() - began) / 60
        if progress.done % REPORTED_STEPS == 0:
            loss_so_far = sum(seen) / len(seen)
            print(
                f"step {progress.done} of {len(steps)}  loss {loss_so_far:.3f}  {progress.minutes:.1f} min", flush=True
            )
            seen.clear()
        if progress.done % len(epochs[0]) == 0:
            progress.lines.append(f"epoch {progress.done // len(epochs[0])}: {after_epoch()}")
            print(progress.lines[-1], flush=True)
            saved = -math.inf
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            state.save(how.checkpoint, progress)
            saved = time.monotonic()
    return [*progress.lines, f"{len(steps)} steps in {progress.minutes:.0f} minutes"]


@dataclass(frozen=True)
class State:
    """All that the next step depends on, but for the texts."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def save(self, path: Path, progress: Progress) -> None:
        """Writes a checkpoint in one rename."""
        learnt = {name: weight.detach() for name, weight in self.model.named_parameters() if weight.requires_grad}
        state = {"progress": asdict(progress), "model": learnt, "random": torch.get_rng_state()}
        state |= {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}
        fresh = path.with_name(f"{path.name}.fresh")
        torch.save(state, fresh)
        fresh.replace(path)

    def load(self, path: Path) -> Progress:
        """Restores what `save` wrote; returns how far it had come."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["random"])
        progress = Progress(**state["progress"])
        print(f"resumed after step {progress.done}, {progress.minutes:.1f} min", flush=True)
        return progress
