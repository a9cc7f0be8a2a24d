"""Outputs before and after, side by side: the first, the best gains, the worst regressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.markdown import cell, table
from trl_rewards_plugin.text import counted, number


def samples(data: RewardModelCardData) -> str:
    """The first held-out prompts, picked by nobody."""
    which = (
        "The first held-out prompt" if len(data.samples) == 1 else f"The first {len(data.samples)} held-out prompts"
    )
    return _outputs(f"{which}, sampled, with the reward of each output.", data.samples)


def gains(data: RewardModelCardData) -> str:
    """Where the reward rose most."""
    told = f" ({_score(data.rows_better)} higher than before)" if data.rows_better else ""
    return _outputs(f"**Best gains**{told}:", data.gains)


def losses(data: RewardModelCardData) -> str:
    """Where it fell most."""
    told = f" ({_score(data.rows_worse)} lower)" if data.rows_worse else ""
    return _outputs(f"**Worst regressions**{told}:", data.losses)


def _score(outputs: int) -> str:
    return counted(outputs, "output") + (" scores" if outputs == 1 else " score")


def _outputs(told: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    cells = []
    for row in rows:
        before, after = row["before_reward"], row["after_reward"]
        sides = [f"{cell(row[side])} ({number(row[f'{side}_reward'], '+.2f')})" for side in ("before", "after")]
        cells.append([cell(row["source"]), *sides, number(_difference(before, after), "+.2f")])
    return f"{told}\n\n" + table(["Source", "Before", "After", "Change"], cells, {3})


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
