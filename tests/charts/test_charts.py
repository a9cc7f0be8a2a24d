"""Both kinds of charts as XML: what is drawn where, worked by hand."""

from xml.etree import ElementTree

import numpy as np
import pytest

from tests.report.folders import LOG_ROWS, log_row
from trl_rewards_plugin.charts.series import Panel, Series, series_of
from trl_rewards_plugin.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, series_class
from trl_rewards_plugin.charts.svg_charts import draw_curves, draw_distributions

REWARD = Panel("Reward", "mean", "objective/scores", "eval_reward")


def drawn(svg, tag, kind):
    """The elements of a class."""
    root = ElementTree.fromstring(svg)
    return [element for element in root.iter(tag) if kind in element.get("class", "").split()]


def points(line):
    return np.array([[float(part) for part in pair.split(",")] for pair in line.get("points").split()])


def line(values, name="one", index=0):
    steps = np.arange(1, len(values) + 1, dtype=float)
    return Series(name, index, steps, 8 * steps, np.array(values, dtype=float))


def test_a_line_goes_from_end_to_end_and_up_where_the_value_rises():
    (mean,) = drawn(draw_curves(REWARD, [line([0.0, 1.0])]), "polyline", "mean")
    (left, low), (right, high) = points(mean)
    middle = LEFT + (WIDTH - RIGHT - LEFT) / 2
    assert (left, right) == (middle, WIDTH - RIGHT)  # episodes 8 and 16 of 16
    height = HEIGHT - BOTTOM - TOP
    # The range is -0.05 to 1.05: each end a 22nd of the height from its edge.
    assert [low, high] == pytest.approx([HEIGHT - BOTTOM - height / 22, TOP + height / 22], abs=0.05)


def test_long_runs_have_a_thin_line_and_a_mean_of_the_last_tenth():
    svg = draw_curves(REWARD, [line([0.0, 1.0] * 10)])
    (each,), (mean,) = drawn(svg, "polyline", "each"), drawn(svg, "polyline", "mean")
    assert len(points(each)) == len(points(mean)) == 20
    assert np.ptp(points(mean)[1:, 1]) == 0  # two rollouts to a mean: 0.5 from the second on
    assert np.ptp(points(each)[:, 1]) > 100
    assert drawn(draw_curves(REWARD, [line([0.0] * 19)]), "polyline", "each") == []


def test_runs_have_colours_of_their_own_and_tooltips_with_their_numbers():
    svg = draw_curves(
        REWARD, [line([0.0, 1.0], "one", 0), line([1.0, 3.0], "two", 1), *series_of(LOG_ROWS, REWARD, "one", 9)[1:]]
    )
    assert [element.get("class") for element in drawn(svg, "polyline", "mean")] == ["mean s0", "mean s1"]
    assert [element.get("class") for element in drawn(svg, "circle", "dot")] == ["dot s1 again"]
    titles = [element.text for element in ElementTree.fromstring(svg).iter("title")]
    assert "two\nstep 2 (16 episodes): 3" in titles
    assert "one, held-out prompts\nstep 4 (32 episodes): 1.75" in titles
    label = ElementTree.fromstring(svg).get("aria-label")
    assert label.startswith("Reward. one: 0 at step 1, 1 at step 2; two: 1 at step 1, 3 at step 2; one, held-out")


def test_a_single_rollout_is_a_dot():
    svg = draw_curves(REWARD, [line([2.0])])
    assert len(drawn(svg, "circle", "dot")) == 1
    assert drawn(svg, "polyline", "mean") == []


def test_an_evaluation_before_the_first_rollout_has_a_place():
    series = Series("one", 0, np.zeros(1), np.zeros(1), np.ones(1), held_out=True)
    (dot,) = drawn(draw_curves(REWARD, [series]), "circle", "dot")
    assert dot.get("cx") == str(LEFT)


def test_a_long_run_makes_no_large_picture():
    svg = draw_curves(REWARD, [line(np.random.default_rng(0).normal(size=50_000))])
    assert len(svg) < 60_000


def test_histograms_by_hand():
    before, after = np.array([0.0, 0.0, 0.0, 8.0]), np.array([8.0, 8.0, np.nan, 0.0])
    svg = draw_distributions("good", before, after, 2)
    first, second = drawn(svg, "polyline", "bars")
    assert (first.get("class"), second.get("class")) == ("bars before", "bars s2")
    bottom, top = HEIGHT - BOTTOM, TOP
    one = (bottom - top) / (1.08 * 3)  # an output's height: three are the most in a bin
    heights = bottom - points(first)[:, 1]
    assert heights[[1, -2]] == pytest.approx([3 * one, one], abs=0.1)
    heights = bottom - points(second)[:, 1]
    assert heights[[1, -2]] == pytest.approx([one, 2 * one], abs=0.1)
    means = [points(element)[0, 0] for element in drawn(svg, "polyline", "average")]
    width = WIDTH - RIGHT - LEFT
    assert means == pytest.approx([LEFT + width / 4, LEFT + width * 2 / 3], abs=0.1)
    titles = [element.text for element in ElementTree.fromstring(svg).iter("title")]
    assert titles[0] == "0 to 1\noutputs: before 3, after 1"
    assert (
        ElementTree.fromstring(svg).get("aria-label") == "good. before: 4 outputs, mean 2; after: 3 outputs, mean 5.33"
    )


def test_a_side_that_nothing_scored_has_no_mean():
    svg = draw_distributions("good", np.array([1.0]), np.array([np.nan]), 0)
    assert len(drawn(svg, "polyline", "average")) == 1
    svg = draw_distributions("good", np.array([np.nan]), np.array([np.nan]), 0)
    assert drawn(svg, "polyline", "average") == []
    assert len(drawn(svg, "polyline", "bars")) == 2


def test_names_of_any_kind_leave_the_picture_well_formed():
    name = 'a<b>&"\x00\x1b\u202e'
    svg = draw_curves(Panel(name, name, "key"), [line([1.0, 2.0], name)])
    assert ElementTree.fromstring(svg).get("aria-label").startswith('a<b>&". a<b>&": 1')
    assert not set("\x00\x1b\u202e") & set(svg)
    ElementTree.fromstring(draw_distributions(name, np.array([1.0]), np.array([2.0]), 0))


def test_colours_come_again_dashed():
    assert [series_class(index) for index in (0, 7, 8)] == ["s0", "s7", "s0 again"]


def test_numbers_whose_range_no_float_holds_are_left_out():
    rows = [log_row(1, 1.0), log_row(2, 1e308), log_row(3, -1e308), log_row(4, 2.0)]
    (series,) = series_of(rows, Panel("Reward", "mean", "objective/scores"), "one", 0)
    assert list(series.values) == [1.0, 2.0]
    assert "nan" not in draw_distributions("good", np.array([0.0, 1e308]), np.array([-1e308, np.inf]), 0)
