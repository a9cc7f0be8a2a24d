"""What the terminal shows of a run or an evaluation, as plain text: the plan, tables, outputs side by side."""

import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS, pairs_by_gain
from trl_rewards_plugin.runs.reward_description import targets_in_words
from trl_rewards_plugin.text import cut_prompts, one_line

GUARD_NAMES = {
    "rouge_l_source": "ROUGE-L to the source",
    "output_length": "words per output",
    "distinct": "distinct outputs",
    "distinct_greedy": "distinct greedy outputs",
    "not_whole_input": "outputs that differ from the input",
}


def terminal_width() -> int:
    """Columns to print in: the terminal's, between 60 and 110; 100 in a pipe."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), 110)


def format_plan(lines: Mapping[str, str], width: int | None = None) -> str:
    """One labelled line per entry, wrapped with a hanging indent."""
    pad = max(map(len, lines)) + 2
    fill = partial(textwrap.fill, width=width or terminal_width(), break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        fill(text, initial_indent=f"{label:<{pad}}", subsequent_indent=" " * pad) for label, text in lines.items()
    )


def format_counts(counts: Mapping[str, Mapping[str, float]], outputs: int) -> str:
    """Each thing that was counted in the sampled outputs, before and after."""
    lines = [f"{pair['before']:5.0%} -> {pair['after']:4.0%}  {what}" for what, pair in counts.items()]
    return "\n".join([f"Of {outputs} sampled outputs, before and after training:", *lines])


def format_table(metrics: Mapping[str, Any]) -> str:
    """Rewards before and after with interval and yardsticks, what guards against reward hacking, and a verdict."""
    gains = {"reward": metrics["reward_gain"], **metrics["component_gain"]}
    rows = [["", "before", "after", "gain", "95% CI", "sources", "best of 16"]]
    for name, gain in gains.items():
        sides = [decimals(metrics[side][name]) for side in ("before", "after", "sources", "best_of_16")]
        rows.append([name[:22], *sides[:2], decimals(gain["mean"], "+"), _interval(gain, 2), *sides[2:]])
    greedy = " -> ".join(decimals(metrics[f"{side}_greedy"]["reward"]) for side in ("before", "after"))
    prompts = f"{metrics['reward_gain']['n']} held-out prompts, one output each, sampled as in training"
    measured = {name: pair for name, pair in metrics["guard"].items() if pair["before"]}
    guards = [f"{GUARD_NAMES.get(key, key)} x {pair['after'] / pair['before']:.2f}" for key, pair in measured.items()]
    kl = "" if metrics["kl"] is None else f"; KL to the reference {decimals(metrics['kl'])} nats"
    cuts = metrics.get("prompt_cuts") or {"cut": 0}  # a run of an earlier version has none
    notes = [
        f"{prompts}; interval: {_how_made(gains.values())}.",
        f"Reward, greedy: {greedy}.",
        f"Guards, after / before: {', '.join(guards)}{kl}.",
    ]
    notes += [f"{cut_prompts(cuts)}."] if cuts["cut"] else []
    notes += [f"The reward is {verdict(metrics['reward_gain'])}."]
    table = _under_each_other(rows, (22, 6, 6, 7, 15, 7, 10), notes)  # 79 columns wide, to fit any terminal
    return "\n".join([table, *(f"target: {line}" for line in targets_in_words(metrics.get("targets", {})))])


def verdict(gain: Mapping[str, Any], words: tuple[str, str] = ("better", "worse")) -> str:
    """What a gain with its `ci95` shows, in one of `words`, or "not distinguishable" with the reason."""
    moved, bounded = direction(gain), gain["ci95"][0] is not None
    if moved:
        how = "the interval of its gain excludes 0" if bounded else "all pairs moved equally"
        return f"{words[0] if moved > 0 else words[1]} than before: {how}"
    why = "the interval of its gain includes 0" if bounded else _why_none(gain["n"])
    return f"not distinguishable from before: {why}"


def direction(gain: Mapping[str, Any]) -> int:
    """1 or -1 where the mean has risen or fallen beyond the interval of the gain, else 0."""
    low, high = gain["ci95"]
    if low is None:  # pairs that all moved by the same amount leave no doubt
        mean = gain.get("reward_gain", gain.get("mean"))
        low = high = mean if gain["n"] >= MIN_PAIRS and mean is not None else 0.0
    return int(low > 0) - int(high < 0)


def _under_each_other(rows: Sequence[Sequence[str]], widths: Sequence[int], notes: Sequence[str]) -> str:
    """Rows of a name on the left and cells on the right of their columns, and a paragraph for each note below."""
    formats = [f"<{widths[0]}", *(f">{width}" for width in widths[1:])]
    lines = [" ".join(map(format, row, formats)).rstrip() for row in rows]
    below = [line for note in notes for line in textwrap.wrap(note, terminal_width())]
    return "\n".join([*lines, "", *below])


def _interval(gain: Mapping[str, Any], digits: int) -> str:
    low, high = gain["ci95"]
    return "none" if low is None else f"{low:+.{digits}f} to {high:+.{digits}f}"


def _how_made(gains: Collection[Mapping[str, Any]]) -> str:
    """What the intervals of gains are and, where one is missing, why; a component's gain has the reward's pairs."""
    pairs = max((gain.get("n", 0) for gain in gains), default=0)
    reasons = dict.fromkeys(_why_none(gain.get("n", pairs)) for gain in gains if gain["ci95"][0] is None)
    return "paired bootstrap over prompts" + (f" (none: {' or '.join(reasons)})" if reasons else "")


def _why_none(pairs: int) -> str:
    return f"fewer than {MIN_PAIRS} pairs" if pairs < MIN_PAIRS else "all gains are equal"


def decimals(value: float | None, sign: str = "") -> str:
    """`value` with three decimals, or one from 10 upwards, to fit its column; a dash if nothing was scored."""
    return "-" if value is None else format(value, f"{sign}.{3 if abs(value) < 9.9995 else 1}f")


def format_outputs(rows: Sequence[Mapping[str, Any]], warnings: Sequence[str] = (), width: int | None = None) -> str:
    """Rows of completions.parquet by gain: the greedy outputs, or the sampled ones below a warning of equal ones.

    Under its title each source, and the outputs before and after side by side, with their rewards.
    """
    width = width or terminal_width()
    column = (width - 3) // 2
    alike = ("", "Sampled outputs (the greedy ones are nearly all alike)")
    kind, which = alike if warnings else ("_greedy", "Greedy outputs")
    heading = f"{which} for held-out prompts, by gain (reward in brackets):"
    blocks = [textwrap.fill(line, width) for line in (*warnings, heading)]
    for title, row in pairs_by_gain(rows, kind).items():
        source = textwrap.shorten(row["source"], 3 * width - 20, placeholder=" ...")
        block = [f"{title}:", *textwrap.wrap(f"source: {source}", width, subsequent_indent="        ")]
        before, after = (
            textwrap.wrap(
                f"{side} ({row[f'{side}{kind}_reward']:+.2f}): {row[f'{side}{kind}'] or '(nothing)'}", column
            )
            for side in ("before", "after")
        )
        block += [f"{left:<{column}} | {right}".rstrip() for left, right in zip_longest(before, after, fillvalue="")]
        blocks.append("\n".join(block))
    return "\n\n".join(blocks)


def shortened(text: str, most: int = 300) -> str:
    """`text` on one line; of a long one its two ends, since a cut shows at the end."""
    line = one_line(text)
    return line if len(line) <= most else f"{line[: most // 2]} [...] {line[-most // 2 :]}"


def about_shares(names: Collection[str]) -> list[str]:
    """What the rows `share_above` count, where there is one."""
    text = "share_above: share of the outputs that score above the metric's threshold"
    default = "0.5 for probabilities and 0 for logits, unless metric_kwargs sets it"
    return [f"{text}: {default}"] if any(name.endswith(" share_above") for name in names) else []


def format_evaluation(result: Mapping[str, Any]) -> str:
    """The result as plain text: with two sides before, after, gain, interval and share improved; else quartiles."""
    metrics = result["metrics"]
    width = max(22, *(len(name) + 2 for name in metrics))
    if result["before"] is None:
        rows = [["", "mean", "least", "25%", "median", "75%", "most"]]
        for name, row in metrics.items():
            rows.append([name, decimals(row.get("after")), *map(decimals, row.get("quartiles") or [])])
        notes = [f"{result['n']} outputs", *about_shares(metrics)]
        return _under_each_other(rows, (width, 7, 9, 7, 7, 7, 7), notes)
    rows = [["", "before", "after", "gain", "95% CI", "improved"]]
    for name, row in metrics.items():
        before, after, gain = row.get("before"), row.get("after"), row.get("gain")
        change = None if before is None or after is None else after - before
        rows.append([name, decimals(before), decimals(after), decimals(change, "+")])
        if gain is not None and gain["n"] > 0:
            rows[-1][3:] = [decimals(gain["reward_gain"], "+"), _interval(gain, 3), f"{gain['share_improved']:.0%}"]
    gains = {name: row["gain"] for name, row in metrics.items() if row.get("gain")}
    how = _how_made(gains.values())
    notes = [f"{result['n']} outputs; interval: {how}; improved: share of outputs that score higher than before"]
    notes += [f"{name}: {verdict(gain, ('higher', 'lower'))}" for name, gain in gains.items()]
    return _under_each_other(rows, (width, 7, 7, 8, 18, 8), notes + about_shares(metrics))
