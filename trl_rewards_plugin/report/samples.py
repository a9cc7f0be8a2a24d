"""Which outputs the page shows: some of each of some steps, evenly spaced; with all of them it would not open."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_rewards_plugin.cards.card_data import picked
from trl_rewards_plugin.charts.series import total_name
from trl_rewards_plugin.metrics.paired_gain import pairs_by_gain
from trl_rewards_plugin.runs.layout import EVALUATIONS, ROLLOUTS
from trl_rewards_plugin.runs.read import Run, read_rows

STEPS_SHOWN = 12  # of a run
ROWS_SHOWN = 8  # of a step
HELD_OUT_SHOWN = 20  # prompts of a run, each before and after
MOST_CHARACTERS = 1500  # of a text
_NO_SCORES = ("step", "prompt", "completion", "advantage")


@dataclass(frozen=True)
class Sample:
    """An output after `step` rollouts, its texts cut where they are very long; of `scores` the reward is the first."""

    step: int
    held_out: bool
    prompt: str
    output: str
    scores: Mapping[str, float | None]

    @property
    def reward(self) -> float | None:
        return next(iter(self.scores.values()), None)


def samples_of(run: Run) -> list[Sample]:
    """The outputs of a run that are shown, by step."""
    total = total_name(run.log)  # called "reward", as everywhere else on the page
    samples = [
        _sample(step, path.parent.name == EVALUATIONS, row.get("prompt"), row.get("completion"), row, total)
        for paths in run.completion_files.values()
        for step, path in picked([(step_of(path), path) for path in paths], STEPS_SHOWN)
        for row in picked(read_rows(path), ROWS_SHOWN)
    ]
    return sorted(samples, key=lambda sample: sample.step)


def pairs_of(run: Run) -> dict[str, tuple[str, list[Sample]]]:
    """Title -> prompt and outputs before and after: best, median and worst gain first, then more, evenly spaced."""
    first = pairs_by_gain(run.held_out, "")
    by = f" in {run.ranked_by} (" if run.evaluation else " ("
    rows = [row for row in run.held_out if not any(row is one for one in first.values())]
    more = picked(list(enumerate(rows, 1)), HELD_OUT_SHOWN)
    pairs = {}
    ranked = ((title.replace(" (", by), row) for title, row in first.items())
    for title, row in [*ranked, *((f"Another prompt ({place})", row) for place, row in more)]:
        sides = [side for side in ("before", "after") if row.get(side) is not None]
        outputs = [_sample(0, True, row["prompt"], row[side], _scores(row, side)) for side in sides]
        pairs[title] = (outputs[0].prompt, outputs)
    return pairs


def _scores(row: Mapping[str, Any], side: str) -> dict[str, Any]:
    names = [key for key in row if key.startswith(f"{side}_") and not key.startswith(f"{side}_greedy")]
    return {name.removeprefix(f"{side}_"): row[name] for name in names}


def missing_outputs(runs: Sequence[Run]) -> list[str]:
    """Names of the runs that kept no outputs of their rollouts."""
    return [run.name for run in runs if not run.completion_files[ROLLOUTS] and run.evaluation is None]


def step_of(path: Path) -> int:
    """12 of `completions_00012.parquet`."""
    found = re.search(r"\d+", path.stem)
    return int(found[0]) if found else 0


def shown_text(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text` without the control characters that HTML forbids, and of at most `most` characters."""
    kept = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    return kept if len(kept) <= most else f"{kept[:most]} ... ({len(kept) - most:,} more characters)"


def _sample(
    step: int, held_out: bool, prompt: Any, output: Any, row: Mapping[str, Any], total: str | None = None
) -> Sample:
    scores = {
        "reward" if key == total else key: float(value) if value is not None and math.isfinite(value) else None
        for key, value in row.items()
        if key not in _NO_SCORES and isinstance(value, float | int | None) and not isinstance(value, bool)
    }
    return Sample(step, held_out, shown_text(_lines(prompt)), shown_text(_lines(output)), scores)


def _lines(text: Any) -> str:
    """A conversation as one "role: content" a line."""
    if isinstance(text, list) and all(isinstance(part, dict) and {"role", "content"} <= part.keys() for part in text):
        return "\n".join(f"{part['role']}: {part['content']}" for part in text)
    return "" if text is None else str(text)
