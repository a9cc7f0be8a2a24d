import numpy as np
import pytest
from matplotlib.figure import Figure

from trl_rewards_plugin.charts import histograms as distributions
from trl_rewards_plugin.charts.histograms import save_distributions
from trl_rewards_plugin.metrics.paired_gain import paired_gain


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: figures.append(self) or real(self, *args, **kwargs)
    )
    return figures


def draw(path, rows, title="a title"):
    pairs = {name: sides for name, sides in rows.items() if sides[0] is not None}
    gains = {name: paired_gain(before.tolist(), after.tolist()) for name, (before, after) in pairs.items()}
    save_distributions(rows, gains, title, path / "picture.png")
    assert (path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_both_sides_share_axes_that_start_at_zero_and_count_everything(tmp_path, drawn):
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=40), generator.normal(1, size=40)
    after[3] = np.nan
    draw(tmp_path, {"reward": (before, after)})
    sides, differences = drawn[0].axes
    assert sides.get_ylim()[0] == differences.get_ylim()[0] == 0
    labels = [text.get_text() for text in sides.get_legend().get_texts()]
    assert labels == [f"before, mean {before.mean():.3f}", f"after, mean {np.nanmean(after):.3f}"]
    low, high = sides.get_xlim()
    assert low <= min(before.min(), np.nanmin(after))
    assert high >= max(before.max(), np.nanmax(after))
    assert differences.get_title(loc="left").startswith("after - before")
    assert "of 39 improved" in differences.get_title(loc="left")
    edges = differences.patches[0].get_data().edges
    assert (edges.min(), edges.max()) == pytest.approx((np.nanmin(after - before), np.nanmax(after - before)))
    assert drawn[0].get_suptitle() == "a title"


def test_the_legend_stands_above_the_bars(tmp_path, drawn):
    draw(tmp_path, {"reward": (np.zeros(30), np.zeros(30))})
    axes = drawn[0].axes[0]
    assert axes.get_ylim()[1] > 30 * distributions.HEAD_ROOM * 0.99


def test_one_side_alone_and_what_was_not_scored(tmp_path, drawn):
    draw(tmp_path, {"reward": (None, np.array([1.0, 2.0])), "other": (None, np.array([np.nan, np.nan]))})
    assert len(drawn[0].axes) == 2
    labels = [axes.get_legend().get_texts()[0].get_text() for axes in drawn[0].axes]
    assert labels == ["outputs, mean 1.500", "outputs, not scored"]
    draw(tmp_path, {"reward": (np.array([np.nan]), np.array([1.0]))})
    assert [axes.get_visible() for axes in drawn[1].axes] == [True, False]


def test_nothing_to_draw_is_said(tmp_path, drawn):
    draw(tmp_path, {})
    assert drawn[0].axes[0].texts[0].get_text() == "No metric has a score for each output."


def test_a_score_that_repeats_another_is_drawn_once(tmp_path, drawn):
    before, after = np.arange(3.0), np.array([1.0, np.nan, 3.0])
    none = (np.zeros(3), np.zeros(3))
    rows = {"rougeL": (before, after), "rougeLsum": (before.copy(), after.copy()), "rude": none, "false": none}
    draw(tmp_path, rows)
    drawn_names = [axes.get_xlabel().removesuffix(" (dashed: mean)") for axes in drawn[0].axes[::2]]
    assert drawn_names == ["rougeL and rougeLsum", "rude", "false"]
