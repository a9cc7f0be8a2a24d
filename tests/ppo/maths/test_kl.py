import math

import pytest
import torch

from trl_rewards_plugin.ppo.maths.kl import next_kl_coef, token_kl


def test_k1_and_k3_by_hand():
    logprobs, ref = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]])
    assert token_kl(logprobs, ref, "k1").tolist() == [[0.5, -1.0]]
    expected = [math.exp(-0.5) - 1 + 0.5, math.exp(1.0) - 1 - 1.0]
    assert token_kl(logprobs, ref, "k3")[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_both_average_to_the_exact_divergence(estimator):
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    estimates = token_kl(p.log()[None], q.log()[None], estimator)[0]
    assert (p * estimates).sum().item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(KeyError, match="k2"):
        token_kl(torch.zeros(1, 1), torch.zeros(1, 1), "k2")


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),  # on target
        (6.6, 0.2 * (1 + 0.1 * 64 / 10_000)),  # 10 % above
        (60.0, 0.2 * (1 + 0.2 * 64 / 10_000)),  # clipped at 20 %
        (-5.0, 0.2 * (1 - 0.2 * 64 / 10_000)),
    ],
)
def test_the_controller_by_hand(kl, expected):
    assert next_kl_coef(0.2, kl, target=6.0, episodes=64, horizon=10_000) == pytest.approx(expected)
