"""Reward against KL: the series, the PNG and the SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from trl_rewards_plugin.charts.reward_kl import (
    BEST_OF_N,
    RESULT,
    TILTED,
    draw_reward_kl,
    reward_kl_series,
    save_reward_kl,
)

METRICS = {"reward_at_kl": {"tilted": [[0.0, 1.0], [0.5, 2.0], [1.0, 2.5]], "best_of_n": [[0.0, 1.0], [0.19, 1.1]]}}
FINISHED = {**METRICS, "kl": 0.45, "after": {"reward": 1.6}}
TRAINING, EVALUATED = (f"path of this run, {which} prompts" for which in ("training", "held-out"))
ROLLOUTS = [{"step": step, "objective/kl": 0.1 * step, "objective/scores": 1.0 + step} for step in range(4)]
EVALUATIONS = [{"step": 1, "eval_kl": 0.1, "eval_reward": 1.2}, {"step": 3, "eval_kl": 0.4, "eval_reward": 1.5}]


def test_the_path_is_that_of_the_evaluations_and_without_them_of_the_rollouts():
    series = reward_kl_series(METRICS, [*ROLLOUTS, *EVALUATIONS])
    assert list(series) == [TILTED, BEST_OF_N, EVALUATED]
    np.testing.assert_allclose(series[EVALUATED], [[0.1, 1.2], [0.4, 1.5]])
    series = reward_kl_series(METRICS, ROLLOUTS)
    assert list(series)[2] == TRAINING
    np.testing.assert_allclose(series[TRAINING], [[0.1 * step, 1.0 + step] for step in range(4)])
    assert list(reward_kl_series(METRICS, [])) == [TILTED, BEST_OF_N]
    assert list(reward_kl_series({}, ROLLOUTS)) == [TRAINING]
    assert reward_kl_series({}, []) == reward_kl_series({"kl": 0.45, "after": {"reward": 1.6}}, []) == {}


def test_the_best_possible_ends_where_best_of_n_passes_it():
    best = [[0.0, 0.026], [0.193, 0.344], [0.636, 0.617], [1.204, 0.844], [1.835, 1.003]]
    tilted = [[0.447, 0.528], [0.766, 0.67], [1.177, 0.8], [2.548, 0.999]]
    series = reward_kl_series({"reward_at_kl": {"tilted": tilted, "best_of_n": best}}, [])
    # At 1.177 nats best of n has 0.833, and at 0.636 the line between two of the points has 0.612.
    assert series[TILTED].tolist() == tilted[:1]
    assert series[BEST_OF_N].tolist() == best
    series = reward_kl_series({"reward_at_kl": {"tilted": tilted, "best_of_n": [best[0], *best[3:]]}}, [])
    assert series[TILTED].tolist() == tilted[:2]


def test_totals_that_move_with_multipliers_are_not_drawn_beside_curves_of_the_reward():
    rows = [{**row, "multiplier/words/max": 1.0} for row in ROLLOUTS]
    assert list(reward_kl_series(METRICS, rows)) == [TILTED, BEST_OF_N]
    assert list(reward_kl_series(METRICS, [*rows, *EVALUATIONS]))[2] == EVALUATED


def test_what_cannot_be_drawn_is_left_out():
    rows = [*ROLLOUTS, {"objective/kl": float("nan"), "objective/scores": 1.0}]
    rows += [{"objective/kl": 1.0, "objective/scores": 1e305}]
    assert len(reward_kl_series({}, rows)[TRAINING]) == len(ROLLOUTS)


def test_long_runs_are_smoothed_in_both_directions_and_thinned():
    rows = [{"objective/kl": float(step), "objective/scores": -float(step)} for step in range(1000)]
    path = reward_kl_series(METRICS, rows)[TRAINING]
    assert len(path) <= 60
    # Trailing means of 100 rollouts: the last is that of 900 ... 999.
    assert path[-1] == pytest.approx([949.5, -949.5])


def test_the_png_shows_every_series_under_its_name(tmp_path, monkeypatch):
    saved, real = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: saved.append(self) or real(self, *args, **kwargs)
    )
    save_reward_kl(reward_kl_series(FINISHED, EVALUATIONS), tmp_path / "reward_kl.png")
    assert (tmp_path / "reward_kl.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = saved[0].axes
    assert axes.get_legend_handles_labels()[1] == [TILTED, BEST_OF_N, EVALUATED, "start", "end", RESULT]
    marks = np.concatenate([line.get_xydata() for line in axes.lines[3:]])
    np.testing.assert_allclose(marks, [[0.1, 1.2], [0.4, 1.5], [0.45, 1.6]])
    assert axes.lines[0].get_xydata().tolist() == METRICS["reward_at_kl"]["tilted"]
    # What was possible is grey, so that the run alone is coloured.
    assert [(line.get_color(), line.get_linestyle()) for line in axes.lines[:3]] == [
        ("0.5", "-"), ("0.5", "--"), ("C0", "-")
    ]  # fmt: skip
    assert axes.get_xlabel() == "KL to the reference (nats per response)"


def test_the_svg_is_well_formed_and_has_a_tooltip_at_each_point():
    svg = draw_reward_kl(reward_kl_series(FINISHED, EVALUATIONS), index=1)
    tree = ElementTree.fromstring(svg)
    titles = [element.text for element in tree.iter() if element.tag.endswith("title")]
    assert len(re.findall('<circle class="dot', svg)) == 3 + 2 + 2 + 1 + 1
    assert svg.count('class="ring"') == svg.count('class="dot ink"') == 1
    assert {text.splitlines()[0] for text in titles} == {TILTED, BEST_OF_N, EVALUATED, RESULT, "start", "end"}
    assert any(RESULT in text and "1.6 at 0.45 nats" in text for text in titles)
    assert any(TILTED in text and "2.5 at 1 nats" in text for text in titles)
    # The run in its own colour, what was possible in none that a run has.
    assert re.findall('polyline class="([^"]*)"', svg) == ["mean before", "mean before again", "mean s1"]
