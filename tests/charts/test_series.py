"""The numbers behind curves and histograms, worked by hand."""

import numpy as np
import pytest

from tests.report.folders import LOG_ROWS, log_row
from trl_rewards_plugin.charts.series import Panel, histograms, moving_average, panels, series_of, thinned

REWARD = Panel("Reward", "mean", "objective/scores", "eval_reward")


def test_the_panels_are_what_was_logged_without_the_total_under_its_other_name():
    titles = [panel.title for panel in panels([LOG_ROWS])]
    assert titles == ["Reward", "good", "kind", "KL to the reference", "Response length", "Entropy"]
    assert panels([[]]) == []


def test_series_of_rollouts_and_of_held_out_prompts():
    rollouts, held_out = series_of(LOG_ROWS, REWARD, "one", 0)
    assert rollouts.values.tolist() == [0.0, 1.0, 0.5, 2.0]
    assert rollouts.episodes.tolist() == [8, 16, 24, 32]
    assert (held_out.values.tolist(), held_out.episodes.tolist()) == ([1.75], [32])
    assert held_out.held_out
    assert series_of(LOG_ROWS, Panel("Entropy", "nats", "objective/entropy"), "one", 0)[0].values.tolist() == [
        1,
        1 / 2,
        1 / 3,
        1 / 4,
    ]
    assert series_of([], REWARD, "none", 0) == []


def test_numbers_that_are_not_finite_are_left_out():
    log = [log_row(1, float("nan")), log_row(2, 1.0), log_row(3, float("inf"))]
    (rollouts,) = series_of(log, REWARD, "one", 0)
    assert (rollouts.steps.tolist(), rollouts.values.tolist()) == ([2], [1.0])


def test_thinning_keeps_ends_and_extremes():
    values = np.sin(np.arange(10_000) / 300)
    values[4321], values[7] = 50.0, -50.0
    kept = thinned(values, 600)
    assert len(kept) <= 600
    assert {0, 7, 4321, 9999} <= set(kept.tolist())
    assert np.all(np.diff(kept) > 0)
    assert thinned(values[:600], 600).tolist() == list(range(600))


def test_moving_average_by_hand():
    averages = moving_average(np.array([1.0, 3.0, 5.0, 1.0]), 2)
    assert averages == pytest.approx([1, 2, 4, 3])
    assert moving_average(np.array([2.0, 8.0]), 1) == pytest.approx([2, 8])


def edges_of(*sides):
    return histograms(*map(np.array, sides))[0]


def test_bins_hold_every_number_of_both_sides():
    edges = edges_of([0.0, 1.0, np.nan], [0.5, 3.0, 2.0])
    assert (edges[0], edges[-1]) == (0.0, 3.0)
    assert len(edges) == 9
    assert np.allclose(np.diff(edges), np.diff(edges)[0])
    assert len(edges_of(np.arange(1000.0))) == 25
    assert edges_of([2.0, 2.0]).tolist() == [1.0, 3.0]
    assert edges_of([np.nan]).tolist() == [0.0, 1.0]


def test_counts_and_means_leave_out_what_was_not_scored():
    _, (before, after, none) = histograms(np.array([0.0, 0.0, 8.0]), np.array([8.0, np.nan]), np.array([np.nan]))
    assert (before.counts.tolist(), before.mean) == ([2, 0, 0, 0, 0, 0, 0, 1], pytest.approx(8 / 3))
    assert (after.counts.tolist(), after.mean) == ([0, 0, 0, 0, 0, 0, 0, 1], 8.0)
    assert (none.counts.tolist(), none.mean) == ([0] * 8, None)
