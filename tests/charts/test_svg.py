import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.charts.svg import nice_ticks, padded_range, tick_labels


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0.0, 10.0, 6, [0, 2, 4, 6, 8, 10]),
        (-0.2, 0.9, 6, [-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]),
        (0.0, 1920.0, 6, [0, 500, 1000, 1500]),
        (0.98, 1.02, 6, [0.98, 0.99, 1.0, 1.01, 1.02]),
    ],
)
def test_ticks_by_hand(low, high, most, ticks):
    assert nice_ticks(low, high, most) == pytest.approx(ticks)


def test_counts_have_whole_ticks():
    assert nice_ticks(0.0, 2.16, 8) == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert nice_ticks(0.0, 2.16, 8, least_step=1.0) == [0, 1, 2]
    assert nice_ticks(0.0, 1.08, 8, least_step=1.0) == [0, 1]


@given(
    low=st.floats(-1e9, 1e9, allow_subnormal=False),
    width=st.floats(1e-6, 1e9),
    most=st.integers(3, 12),
)
def test_ticks_lie_inside_are_few_and_read_differently(low, width, most):
    low, high = padded_range(low, low + width)
    ticks = nice_ticks(low, high, most)
    assert 1 <= len(ticks) <= most
    room = 1e-6 * max(high - low, abs(low), abs(high))
    assert low - room <= ticks[0] <= ticks[-1] <= high + room
    if high - low > 1e-6 * max(abs(low), abs(high)):
        labels = tick_labels(ticks)
        assert len(set(labels)) == len(labels)
        assert all(len(label) < 16 for label in labels)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0.0, 0.2, 0.4], ["0", "0.2", "0.4"]),
        ([-1.0, 0.0, 1.0], ["-1", "0", "1"]),
        ([-0.0], ["0"]),
        ([0.0, 500.0, 1500.0], ["0", "500", "1,500"]),
        ([0.0, 5000.0, 10000.0], ["0", "5k", "10k"]),
        ([0.0, 500_000.0, 1e6], ["0", "0.5M", "1.0M"]),
        ([1_765_420.0, 1_765_425.0], ["1.765420M", "1.765425M"]),
        ([0.0, 2e-6], ["0", "2e-06"]),
        ([0.0, 2e12], ["0", "2e+12"]),
    ],
)
def test_labels_by_hand(ticks, labels):
    assert tick_labels(ticks) == labels


def test_a_range_is_never_empty():
    assert padded_range(0.0, 10.0) == (-0.5, 10.5)
    assert padded_range(3.0, 3.0) == (1.5, 4.5)
    assert padded_range(0.0, 0.0) == (-0.5, 0.5)
