"""The numbers of the curves out of log rows, worked by hand."""

import numpy as np
import pytest

from tests.report.folders import LOG_ROWS, log_row
from trl_rewards_plugin.charts.series import Panel, moving_average, panels, series_of, thinned

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
