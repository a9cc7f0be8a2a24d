"""The console table of `trl-rewards evaluate`. Leaves out: computing any number."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from trl_rewards_plugin.recipes import console as report


def format_evaluation(result: Mapping[str, Any]) -> str:
    """The result as plain text: with two sides before, after, gain, interval and share improved; else quartiles."""
    metrics, paired = result["metrics"], result["before"] is not None
    width = max(22, *(len(name) + 2 for name in metrics))
    head = f"{'before':>8}{'after':>8}{'gain':>9}  {'95 % interval':<18}{'improved':>9}"
    lines = [
        " " * width + (head if paired else f"{'mean':>8}  {'least':>8}{'25 %':>8}{'median':>8}{'75 %':>8}{'most':>8}")
    ]
    for name, row in metrics.items():
        lines.append((f"{name:<{width}}" + (_paired_cells(row) if paired else _single_cells(row))).rstrip())
    notes = f"{result['n']} outputs"
    if paired:
        notes += "; interval: paired bootstrap over them; improved: share with after above before"
    return "\n".join([*lines, "", *textwrap.wrap(notes, report.terminal_width())])


def _paired_cells(row: Mapping[str, Any]) -> str:
    before, after, gain = row.get("before"), row.get("after"), row.get("gain")
    change = None if before is None or after is None else after - before
    cells = f"{report.decimals(before):>8}{report.decimals(after):>8}"
    if gain is None or gain["n"] == 0:
        return f"{cells}{report.decimals(change, '+'):>9}"
    low, high = gain["ci95"]
    interval = f"{report.decimals(low, '+')} to {report.decimals(high, '+')}"
    return f"{cells}{report.decimals(gain['reward_gain'], '+'):>9}  {interval:<18}{gain['share_improved']:>8.0%}"


def _single_cells(row: Mapping[str, Any]) -> str:
    quartiles = row.get("quartiles") or []
    return f"{report.decimals(row.get('after')):>8}  " + "".join(f"{report.decimals(value):>8}" for value in quartiles)
