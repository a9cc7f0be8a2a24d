"""`trl-rewards report`: runs as one HTML page, which may be mailed: it needs no network and no other file.

Its content security policy lets the browser load nothing and run no script but the page's own, whatever a model wrote.
Every word of HTML is in `page.html.jinja`.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.charts.reward_kl import BEST_OF_N, draw_reward_kl, reward_kl_series
from trl_rewards_plugin.charts.series import Panel, Series, distinct, panels, series_of, smoothing_window
from trl_rewards_plugin.charts.svg import environment_of, series_class
from trl_rewards_plugin.charts.svg_charts import draw_curves, draw_distributions
from trl_rewards_plugin.recipes.console import about_shares
from trl_rewards_plugin.report import samples, table
from trl_rewards_plugin.runs.layout import REPORT
from trl_rewards_plugin.runs.read import Run, read_runs
from trl_rewards_plugin.text import listed

FOLDER = Path(__file__).parent


def write_report(folders: Sequence[str | Path], path: Path | None = None) -> Path:
    """Writes the page of the runs in `folders`, finished or not; returns where it is.

    A `path` of None is `report.html` in the run folder, or here where there are several.
    """
    runs = [table.with_trl_names(run) for run in read_runs(folders)]
    path = path or (runs[0].folder / REPORT if len(runs) == 1 else Path(REPORT))
    page = report_html(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def report_html(runs: Sequence[Run]) -> str:
    """The whole page."""
    environment = environment_of(FOLDER)
    curves, numbers = curve_series(runs), table.number_rows(runs)
    reward_kl = [(run, reward_kl_series(run.metrics or {}, run.log)) for run in runs]
    environment.filters |= {"series_class": series_class, "digest": _digest}
    style, script = (Markup((FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    return environment.get_template("page.html.jinja").render(
        style=style,
        script=script,
        runs=runs,
        title=table.title(runs),
        headlines=[table.headline(run) for run in runs],
        rewards={run.name: text for run in runs if (text := table.reward_in_words(run))},
        curves={panel.title: Markup(draw_curves(panel, series)) for panel, series in curves},
        unit="step" if any(each.by_step for _, series in curves for each in series) else "rollout",
        with_dots=any(each.held_out for _, series in curves for each in series),
        window=max(smoothing_window(run.last_step) for run in runs),
        distributions=[distribution_charts(run, index) for index, run in enumerate(runs)],
        reward_kl={run.name: Markup(draw_reward_kl(series, runs.index(run))) for run, series in reward_kl if series},
        with_bounds=any(BEST_OF_N in series for _, series in reward_kl),
        numbers=numbers,
        shares=about_shares(numbers),
        caveat=table.why_not_comparable(runs),
        settings=table.setting_rows(runs, differing=len(runs) > 1),
        spread=table.seed_spread(runs),
        verdicts=table.verdicts(runs),
        pairs=[samples.pairs_of(run) for run in runs],
        samples=[samples.samples_of(run) for run in runs],
        without_outputs=samples.missing_outputs(runs),
        limits=samples,
    )


def curve_series(runs: Sequence[Run]) -> list[tuple[Panel, list[Series]]]:
    """Each quantity that was logged, with the series of all runs."""
    found = [
        (panel, [each for index, run in enumerate(runs) for each in series_of(run.log, panel, run.name, index)])
        for panel in panels([run.log for run in runs])
    ]
    return [(panel, series) for panel, series in found if series]


def distribution_charts(run: Run, index: int) -> dict[str, Markup]:
    """Name -> chart of the reward and each component of the sampled held-out outputs, before and after."""
    columns = run.held_out[0] if run.held_out else {}
    names = [name.removeprefix("before_") for name in columns if name.startswith("before_")]
    scores: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        again = name == "reward" != run.ranked_by  # an evaluation's metric has its own name, too
        if not again and not name.startswith("greedy") and f"after_{name}" in columns:
            before, after = ([row[f"{side}_{name}"] for row in run.held_out] for side in ("before", "after"))
            scores[name] = np.array(before, dtype=np.float64), np.array(after, dtype=np.float64)
    drawn = {listed(names): sides for names, sides in distinct(scores).items()}
    return {name: Markup(draw_distributions(name, *sides, index)) for name, sides in drawn.items()}


def _digest(text: str) -> str:
    """How a content security policy names a style or script that it lets in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
