"""Run folders as a run leaves them, small and worked by hand. Leaves out: a model."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.recipes.test_before_after import make_metrics
from trl_rewards_plugin.ppo.monitoring.completions import write_completions
from trl_rewards_plugin.runs.layout import CONFIG, HELD_OUT, LOG, METRICS, ROLLOUTS
from trl_rewards_plugin.runs.writing import write_rows, write_yaml

REWARDS = [{"name": "good", "weight": 1.0, "model": "owner/judge"}, {"name": "kind", "weight": 0.5}]
# Rollouts of 8 episodes; the total is logged under the reward's own name, too.
REWARD_LOG = [0.0, 1.0, 0.5, 2.0]


@cache
def metrics() -> str:
    """`metrics.json`; tests/recipes/test_before_after.py works it out."""
    return json.dumps(make_metrics())


def log_row(step: int, reward: float) -> dict[str, Any]:
    """The log of a rollout, as far as a page reads it."""
    return {
        "step": step,
        "episode": 8 * step,
        "objective/scores": reward,
        "rewards/both/mean": reward * (1 + 1e-6),
        "rewards/good/mean": reward - 1,
        "rewards/kind/mean": 2.0,
        "objective/kl": 0.25 * step,
        "objective/entropy": 1.0 / step,
        "tokens/responses_len_mean": 10.0 + step,
    }


LOG_ROWS = [
    *(log_row(step, reward) for step, reward in enumerate(REWARD_LOG, start=1)),
    {"step": 4, "eval_reward": 1.75, "eval_kl": 1.25, "eval_length": 12.0, "eval_rewards/good/mean": 0.5},
]


def held_out_row(text: str = "an output", after: float = 1.5) -> dict[str, Any]:
    """A row of `completions.parquet` with the components good and kind."""
    sides = ("before", "after", "before_greedy", "after_greedy")
    row: dict[str, Any] = {"prompt": "Say it.", "source": "Say it.", **{side: f"{side} {text}" for side in sides}}
    for side in sides:
        reward = after if side == "after" else 0.5
        row |= {f"{side}_reward": reward, f"{side}_good": reward - 0.5, f"{side}_kind": 1.0}
    return row


def write_log(folder: Path, rows: list[dict[str, Any]] = LOG_ROWS) -> None:
    """`log.jsonl`."""
    (folder / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_run(
    folder: Path, *, held_out: list[dict[str, Any]] | None = None, made_of: Any = None, **config: Any
) -> Path:
    """A finished run; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_log(folder)
    told = {"rewards": REWARDS, "versions": {"trl": "1.16.0"}, **(made_of or {})}
    settings = {"model": "owner/model", "seed": 3, "learning_rate": 1e-5, **config, "made_of": told}
    write_yaml(folder / CONFIG, settings)
    (folder / METRICS).write_text(metrics(), encoding="utf-8")
    rows = held_out or [held_out_row(after=value) for value in (1.5, 2.5)]
    write_rows(folder / HELD_OUT, rows)
    for step in (1, 2):
        table = {"prompt": ["Say it."] * 2, "completion": [f"first of {step}", "second"], "both": [1.0, -0.5]}
        write_completions(folder / ROLLOUTS, {**table, "advantage": [0.1, 0.2]}, step)
    return folder
