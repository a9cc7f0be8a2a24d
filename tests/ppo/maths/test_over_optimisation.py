"""When two rewards part, by hand and in noise."""

import pytest
import torch

from trl_rewards_plugin.ppo.maths.over_optimisation import evaluation_noise, find_parting


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_noise_by_hand_and_without_the_level():
    # Differences 1, -1, 2: sqrt((1 + 1 + 4) / 3 / 2) = 1.
    assert evaluation_noise(tensor(0, 1, 0, 2)).item() == pytest.approx(1.0)
    assert evaluation_noise(tensor(5, 6, 5, 7)).item() == pytest.approx(1.0)
    assert evaluation_noise(tensor(3, 3, 3)).item() == 0.0


def test_noise_is_that_of_independent_evaluations():
    values = 0.3 * torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert evaluation_noise(values).item() == pytest.approx(0.3, rel=0.02)


def test_rewards_part_by_hand():
    # Windows of 3. Second: means 6, 5, 3, 0 at its ends 2 to 5, so the best is the first and the fall 6.
    # Its differences 0, 0, -3, -3, -3 give noise sqrt(27 / 5 / 2) = 1.643, and 4 x 1.643 x sqrt(2 / 3) = 5.37 < 6.
    second = tensor(6, 6, 6, 3, 0, -3)
    # First: 0, 0, 0, 2, 4, 6 rises by 4; differences 0, 0, 2, 2, 2: noise 1.095, limit 3.58.
    first = tensor(0, 0, 0, 2, 4, 6)
    assert find_parting(first, second) == pytest.approx((2, 4.0, 6.0))
    # Falling by 4 it goes along with the second; falling by 2, with differences 0, 0, -1, -1, -1 and a limit of 1.79
    # too, and with 0, 0, -3, 3, -6 by 3, below a limit of 7.6, it is the second alone that falls.
    assert find_parting(-first, second) is None
    assert find_parting(-first / 2, second) is None
    assert find_parting(tensor(6, 6, 6, 3, 6, 0), second) == pytest.approx((2, -3.0, 6.0))
    # One evaluation fewer is too few.
    assert find_parting(first[:5], second[:5]) is None
    # Differences 0, 0, -3, 3, -6 of a fall of 3 (6, 6, 6, 3, 6, 0): noise 2.32, limit 7.6.
    assert find_parting(first, tensor(6, 6, 6, 3, 6, 0)) is None


def test_the_second_must_fall_and_the_first_must_not():
    up, down, still = tensor(0, 0, 0, 2, 4, 6), tensor(6, 6, 6, 4, 2, 0), tensor(1, 1, 1, 1, 1, 1)
    assert find_parting(up, down) is not None
    assert find_parting(still, down) is not None
    for first, second in ((up, up), (down, down), (down, up), (up, still), (still, still)):
        assert find_parting(first, second) is None


def test_units_and_levels_change_nothing():
    first, second = tensor(0, 0, 0, 2, 4, 6), tensor(6, 6, 6, 3, 0, -3)
    since, rise, fall = find_parting(first, second)
    assert find_parting(100 * first - 7, 0.01 * second + 7) == pytest.approx((since, 100 * rise, 0.01 * fall))


def test_the_window_is_a_fifth_of_a_long_run():
    # 40 evaluations, windows of 8: the last 8 of a second reward that dropped for them alone are all below.
    first = torch.arange(40).double()
    second = torch.cat([torch.ones(32), torch.zeros(8)]).double()
    found = find_parting(first, second)
    # All windows of 8 up to evaluation 31 have the mean 1; the first of equals is taken.
    assert found == pytest.approx((7, 32.0, 1.0))
    # One low evaluation is no fall.
    assert find_parting(first, torch.cat([torch.ones(39), torch.zeros(1)]).double()) is None


def rang(first, second):
    return any(find_parting(first[:count], second[:count]) for count in range(1, len(second) + 1))


def test_noise_does_not_ring_and_a_fall_of_six_times_the_noise_does():
    generator = torch.Generator().manual_seed(1)
    false, missed, runs, length = 0, 0, 200, 30
    for _ in range(runs):
        noise = 0.1 * torch.randn(2, length, generator=generator, dtype=torch.float64)
        rising = torch.linspace(0, 3, length).double() + noise[0]
        false += rang(rising, noise[1])  # a second reward that says nothing, while the first rises
        time = torch.linspace(0, 1, length).double()
        peak = torch.where(time < 0.4, 1.5 * time, 0.6 - (time - 0.4))
        missed += not rang(rising, peak + noise[1])
    assert false / runs <= 0.05
    assert missed / runs <= 0.05
