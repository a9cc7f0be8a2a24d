import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from tests.report.folders import LOG_ROWS
from trl_rewards_plugin.charts.curves import save_reward_curve


def row(step, **more):
    return {
        "step": step, "objective/scores": 0.1 * step, "objective/kl": 0.5 * step, "objective/entropy": 1.0,
        "tokens/responses_len_mean": 9.0, **more,
    }  # fmt: skip


def colours(path):
    """How many pixels of the picture are blue (rollouts) and orange (held-out prompts)."""
    pixels = image.imread(path)[..., :3]
    blue, orange = ((np.abs(pixels - colour) < 0.1).all(-1).sum() for colour in ([0.12, 0.47, 0.71], [1, 0.5, 0.05]))
    return blue, orange


def test_the_picture_shows_rollouts_and_evaluations(tmp_path):
    path = tmp_path / "new" / "curves.png"
    rollouts = [row(step) for step in range(1, 31)]
    save_reward_curve(rollouts, path)
    blue, orange = colours(path)
    assert blue > 1000
    assert orange == 0
    evaluations = [{"step": step, "eval_reward": 1.0, "eval_kl": 2.0, "eval_length": 9.0} for step in (0, 15, 30)]
    save_reward_curve([*rollouts, *evaluations, {"step": 30, "epoch_reward": 0.5}], path)
    assert colours(path)[1] > 500
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_equal_logs_give_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save_reward_curve([row(1)], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: saved.append(self) or real(self, *args, **kwargs)
    )
    return saved


def test_components_share_the_axes_of_the_reward_and_the_rest_has_its_own(tmp_path, figures):
    save_reward_curve(LOG_ROWS, tmp_path / "curve.png")
    reward, *below = figures[0].axes
    legend = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert legend == ["Reward", "held-out prompts", "good score (unweighted)", "kind score (unweighted)"]
    assert [line.get_ydata().tolist() for line in reward.lines] == [
        [0.0, 1.0, 0.5, 2.0], [1.75], [-1.0, 0.0, -0.5, 1.0], [2.0] * 4
    ]  # fmt: skip
    assert reward.lines[0].get_xdata().tolist() == [8, 16, 24, 32]
    titles = [axes.get_title(loc="left") for axes in below]
    assert titles == [
        "KL to the reference (nats per response)",
        "Response length (tokens)",
        "Entropy (nats per token)",
    ]


def test_tick_labels_are_whole_and_inside_the_picture(tmp_path, figures):
    rows = [
        row(step) | {"objective/kl": (-1) ** step * 5e-4, "objective/entropy": 7.587 + 1e-5 * step} for step in (1, 2)
    ]
    save_reward_curve(rows, tmp_path / "curve.png")
    for axes in figures[0].axes:
        assert axes.yaxis.get_offset_text().get_text() == ""
        assert min(label.get_window_extent().x0 for label in axes.get_yticklabels()) >= 0
    kl, _, entropy = ([label.get_text() for label in axes.get_yticklabels()] for axes in figures[0].axes[1:])
    assert (kl[0], entropy[0]) == ("-0.0005", "7.587010")


def test_multipliers_of_targets_have_a_row_below(tmp_path, figures):
    rows = [{**one, "multiplier/words/max": 1.5, "multiplier/good/min": 0.5} for one in LOG_ROWS]
    save_reward_curve(rows, tmp_path / "curve.png")
    _, *below = figures[0].axes
    assert [axes.get_title(loc="left") for axes in below[3:]] == [
        "Multiplier words max (per std)",
        "Multiplier good min (per std)",
    ]
    heights = [axes.get_position().y0 for axes in below]
    assert heights[0] == heights[2] > heights[3] == heights[4]


def test_a_long_run_has_its_trailing_mean_in_bold(tmp_path, figures):
    save_reward_curve([row(step) for step in range(1, 31)], tmp_path / "curve.png")
    thin, bold = figures[0].axes[0].lines
    assert thin.get_linewidth() < bold.get_linewidth()
    assert (thin.get_ydata()[-1], bold.get_ydata()[-1]) == pytest.approx((3.0, 2.9))


def test_a_log_without_a_rollout_gives_a_picture_that_says_so(tmp_path, figures):
    save_reward_curve([], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert figures[0].axes[0].texts[0].get_text() == "The log has no rollout yet."


def test_the_held_out_reward_has_its_own_axes_beside_the_reward(tmp_path, figures):
    evaluations = [{"step": step, "eval_reward": 1.0, "eval_held_out_reward": 0.1 * step} for step in (2, 4)]
    save_reward_curve([*LOG_ROWS, *evaluations], tmp_path / "curve.png")
    axes = {each.get_title(loc="left"): each for each in figures[0].axes}
    reward, beside = axes["Reward (mean of a rollout)"], axes["Held-out reward (mean of held-out prompts)"]
    (points,) = beside.lines
    assert points.get_xydata().tolist() == pytest.approx(np.array([[16, 0.2], [32, 0.4]]))
    first, second = reward.get_position(), beside.get_position()
    assert first.y0 == pytest.approx(second.y0)
    assert first.x1 < second.x0
    assert len(axes) == 5
