"""What the terminal shows of a run or an evaluation: the plan, tables of numbers, outputs side by side.

Plain text of at most the terminal's width, so that it reads the same in a pipe. Leaves out: computing any number.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS
from trl_rewards_plugin.runs.reward_description import WEIGHTED_SUM, reward_formula

GUARD_NAMES = {
    "rouge_l_source": "ROUGE-L to the source",
    "output_length": "words per output",
    "distinct": "distinct outputs",
    "not_whole_input": "not the whole input",
}
MAX_WIDTH = 110


def terminal_width() -> int:
    """Columns to print in: the terminal's, between 60 and 110; 100 in a pipe."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), MAX_WIDTH)


def format_reward(described: Sequence[Mapping[str, Any]], aggregation: str | None = None) -> str:
    """`1 x acceptability + 0.5 x neutrality`; with an `aggregation` other than the weighted sum its formula."""
    return reward_formula(described, aggregation or WEIGHTED_SUM)


def format_plan(lines: Mapping[str, str], width: int | None = None) -> str:
    """One labelled line per entry, wrapped with a hanging indent."""
    pad = max(map(len, lines)) + 2
    wrapped = (
        textwrap.fill(
            text,
            width or terminal_width(),
            initial_indent=f"{label:<{pad}}",
            subsequent_indent=" " * pad,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, text in lines.items()
    )
    return "\n".join(wrapped)


def format_table(metrics: Mapping[str, Any]) -> str:
    """The before/after table: rewards with interval and yardsticks, then the guard metrics."""
    # 79 columns wide, to fit any terminal.
    lines = [f"{'':<22}{'before':>7}{'after':>7}{'gain':>8}  {'95% CI':<14}{'sources':>8}{'best of 16':>11}"]
    gains = {"reward": metrics["reward_gain"], **metrics["component_gain"]}
    for name, gain in gains.items():
        before, after, sources, best = (metrics[key][name] for key in ("before", "after", "sources", "best_of_16"))
        low, high = gain["ci95"]
        interval = "none" if low is None else f"{low:+.2f} to {high:+.2f}"
        lines.append(
            f"{_row_name(name)} {decimals(before):>6} {decimals(after):>6}{decimals(gain['mean'], '+'):>8}  "
            f"{interval:<14}{decimals(sources):>8}{decimals(best):>11}"
        )
    for name in gains:
        before, after = metrics["before_greedy"][name], metrics["after_greedy"][name]
        change = None if before is None or after is None else after - before
        label = _row_name(name, ", greedy")
        lines.append(f"{label} {decimals(before):>6} {decimals(after):>6}{decimals(change, '+'):>8}")
    lines.append("")
    for name, pair in metrics["guard"].items():
        ratio = f"x {pair['after'] / pair['before']:.2f}" if pair["before"] else ""
        label = GUARD_NAMES.get(name, name)
        lines.append(f"{label:<22} {decimals(pair['before']):>6} {decimals(pair['after']):>6}{ratio:>8}".rstrip())
    if metrics["kl"] is not None:
        lines.append(f"{'KL to the start, nats':<22}{decimals(0.0):>7}{decimals(metrics['kl']):>7}")
    note = (
        f"{metrics['reward_gain']['n']} held-out prompts; sampled as in training unless marked greedy; "
        f"interval: {_how_made(gains.values())}"
    )
    return "\n".join([*lines, "", *textwrap.wrap(note, terminal_width())])


def _how_made(gains: Iterable[Mapping[str, Any]]) -> str:
    """What the intervals of gains are and, where one is missing, why."""
    missing = any(gain["ci95"][0] is None for gain in gains)
    why = f" (none: fewer than {MIN_PAIRS} pairs, or gains that are all alike)" if missing else ""
    return f"paired bootstrap over prompts{why}"


def decimals(value: float | None, sign: str = "") -> str:
    """`value` with three decimals, or one from 10 upwards, to fit its column; a dash if nothing was scored."""
    return "-" if value is None else format(value, f"{sign}.{3 if abs(value) < 9.9995 else 1}f")


def _row_name(name: str, suffix: str = "") -> str:
    room = 22 - len(suffix) - 1
    return f"{name[:room] + suffix:<22}"


def format_samples(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """Source, then before and after side by side, with their scores.

    Args:
        rows: Each with `source`, `before`, `after` and the totals `before_reward`, `after_reward`.
        width: Columns; the terminal's if None.
    """
    width = width or terminal_width()
    column = (width - 3) // 2
    blocks = []
    for row in rows:
        source = textwrap.shorten(row["source"], 3 * width - 20, placeholder=" ...")
        block = textwrap.wrap(f"source: {source}", width, subsequent_indent="        ")
        left, right = (
            textwrap.wrap(f"{side} ({row[f'{side}_reward']:+.2f}): {row[side] or '(nothing)'}", column)
            for side in ("before", "after")
        )
        height = max(len(left), len(right))
        left, right = (lines + [""] * (height - len(lines)) for lines in (left, right))
        block += [f"{first:<{column}} | {second}".rstrip() for first, second in zip(left, right, strict=True)]
        blocks.append("\n".join(block))
    return "\n\n".join(blocks)


def format_evaluation(result: Mapping[str, Any]) -> str:
    """The result as plain text: with two sides before, after, gain, interval and share improved; else quartiles."""
    metrics, paired = result["metrics"], result["before"] is not None
    width = max(22, *(len(name) + 2 for name in metrics))
    head = f"{'before':>8}{'after':>8}{'gain':>9}  {'95% CI':<18}{'improved':>9}"
    lines = [
        " " * width + (head if paired else f"{'mean':>8}  {'least':>8}{'25 %':>8}{'median':>8}{'75 %':>8}{'most':>8}")
    ]
    for name, row in metrics.items():
        lines.append((f"{name:<{width}}" + (_paired_cells(row) if paired else _single_cells(row))).rstrip())
    notes = f"{result['n']} outputs"
    if paired:
        gains = [row["gain"] for row in metrics.values() if row.get("gain")]
        notes += f"; interval: {_how_made(gains)}; improved: share with after above before"
    return "\n".join([*lines, "", *textwrap.wrap(notes, terminal_width())])


def _paired_cells(row: Mapping[str, Any]) -> str:
    before, after, gain = row.get("before"), row.get("after"), row.get("gain")
    change = None if before is None or after is None else after - before
    cells = f"{decimals(before):>8}{decimals(after):>8}"
    if gain is None or gain["n"] == 0:
        return f"{cells}{decimals(change, '+'):>9}"
    low, high = gain["ci95"]
    interval = "none" if low is None else f"{decimals(low, '+')} to {decimals(high, '+')}"
    return f"{cells}{decimals(gain['reward_gain'], '+'):>9}  {interval:<18}{gain['share_improved']:>8.0%}"


def _single_cells(row: Mapping[str, Any]) -> str:
    quartiles = row.get("quartiles") or []
    return f"{decimals(row.get('after')):>8}  " + "".join(f"{decimals(value):>8}" for value in quartiles)
