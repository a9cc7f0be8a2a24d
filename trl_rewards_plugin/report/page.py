"""`trl-rewards report`: runs as one HTML page that needs no network and no other file.

The page may be mailed: style, script and pictures lie in it, and its content security policy lets the browser load
nothing and run no script but the page's own, whatever a model wrote. Leaves out: what runs hold (`run.py`), what is
drawn (`curves.py`, `histogram.py`), told (`table.py`) and shown (`samples.py`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from trl_rewards_plugin.charts.svg import series_class
from trl_rewards_plugin.charts.svg_histogram import draw_distributions
from trl_rewards_plugin.report import samples, table
from trl_rewards_plugin.report.run_curves import draw_curves, panels, series_of, smoothing_window
from trl_rewards_plugin.runs.layout import REPORT
from trl_rewards_plugin.runs.read import Run, read_runs
from trl_rewards_plugin.runs.writing import write_text

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Chart:
    """A picture with the heading above it."""

    title: str
    svg: Markup


def write_report(folders: Sequence[str | Path], path: Path | None = None) -> Path:
    """Writes the page of the runs in `folders`; returns where it is.

    Args:
        folders: Run folders, finished or not.
        path: Of the page; None: `report.html` in the run folder, or here where there are several.

    Raises:
        InputError: what `read_runs` refuses.
    """
    runs = read_runs(folders)
    path = path or (runs[0].folder / REPORT if len(runs) == 1 else Path(REPORT))
    page = report_html(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def report_html(runs: Sequence[Run]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"series_class": series_class}
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    shown = [sample for index, run in enumerate(runs) for sample in samples.samples_of(run, index)]
    return environment.get_template("page.html.jinja").render(
        title=f"Run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs compared",
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        runs=runs,
        headlines=[table.headline(run) for run in runs],
        curves=curve_charts(runs),
        without_log=[run.name for run in runs if not run.log],
        window=max(smoothing_window(run.last_step) for run in runs),
        distributions=[(run, distribution_charts(run, index)) for index, run in enumerate(runs) if run.held_out],
        numbers=table.number_rows(runs),
        caveat=table.why_not_comparable(runs),
        settings=table.setting_rows(runs, differing=len(runs) > 1),
        samples=shown,
        steps=sorted({sample.step for sample in shown}),
        without_outputs=samples.missing_outputs(runs),
        limits=samples,
    )


def curve_charts(runs: Sequence[Run]) -> list[Chart]:
    """One chart a quantity that was logged, all runs in it."""
    charts = []
    for panel in panels(runs):
        series = [each for index, run in enumerate(runs) for each in series_of(run, index, panel)]
        if series:
            charts.append(Chart(panel.title, Markup(draw_curves(panel, series))))
    return charts


def distribution_charts(run: Run, index: int) -> list[Chart]:
    """The reward and each component of the sampled held-out outputs, before and after."""
    names = [name.removeprefix("before_") for name in run.held_out[0] if name.startswith("before_")]
    scores = {name: _held_out_scores(run, name) for name in names if not name.startswith("greedy")}
    # A single component of weight 1 is the reward once more.
    shown = [
        name
        for name in scores
        if name == "reward" or not np.array_equal(scores[name], scores["reward"], equal_nan=True)
    ]
    return [Chart(name, Markup(draw_distributions(name, scores[name][0], scores[name][1], index))) for name in shown]


def _held_out_scores(run: Run, name: str) -> np.ndarray:
    """(2, N) scores before and after; NaN where a text was not scored."""
    sides = [[row[f"{side}_{name}"] for row in run.held_out] for side in ("before", "after")]
    return np.array(sides, dtype=np.float64)


def _digest(text: str) -> str:
    """How a content security policy names a style or script that it lets in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
