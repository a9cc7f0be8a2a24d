import numpy as np
import pytest

from trl_rewards_plugin.charts import curves as curve

LOG = [
    {"episode": 8 * step, "objective/scores": 0.1 * step, "objective/kl": 0.5 * step, "rewards/good/mean": 0.2 * step}
    for step in range(1, 31)
] + [{"epoch_reward": 0.5, "epoch": 1.0}]


def test_moving_average_by_hand():
    averages = curve.moving_average(np.array([1.0, 3.0, 5.0, 1.0]), 2)
    assert averages == pytest.approx([1, 2, 4, 3])
    assert curve.moving_average(np.array([2.0, 8.0]), 1) == pytest.approx([2, 8])


@pytest.mark.parametrize("log", [LOG, LOG[:1], []], ids=["run", "one rollout", "nothing"])
def test_reward_curve_is_a_picture(tmp_path, log):
    curve.save_reward_curve(log, tmp_path / "curve.png", ["good", "kind"])
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
