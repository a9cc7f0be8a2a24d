import numpy as np
import pytest

from trl_rewards_plugin.charts.binning import histograms


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
