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


FALLING = tensor(6, 6, 6, 6, 6, 3, 0, -3)
RISING = tensor(0, 0, 0, 0, 0, 2, 4, 6)


def test_rewards_part_by_hand():
    # Windows of 3. Of FALLING their means are 6, 6, 6, 5, 3, 0, so the first is the best, and the fall is 6.
    # Its differences 0, 0, 0, 0, -3, -3, -3: noise sqrt(27 / 7 / 2) = 1.389, and 4.6 x 1.389 x sqrt(2 / 3) = 5.22 < 6.
    assert find_parting(RISING, FALLING) == pytest.approx((2, 4.0, 6.0))
    # One evaluation fewer: it fell by 3, and the limit is 4.6.
    assert find_parting(RISING[:7], FALLING[:7]) is None
    # The way up to the best is no noise.
    assert find_parting(tensor(0, *RISING), tensor(-90, *FALLING)) == pytest.approx((3, 4.0, 6.0))
    # Differences -3, 3, -6 of a fall of 3: noise 1.964, limit 7.38.
    noisy = tensor(6, 6, 6, 6, 6, 3, 6, 0)
    assert find_parting(RISING, noisy) is None
    # A first reward that falls by 4 or 2, with limits of 3.48 and 1.74, goes along; the noisy one may have held.
    assert find_parting(-RISING, FALLING) is None
    assert find_parting(-RISING / 2, FALLING) is None
    assert find_parting(noisy, FALLING) == pytest.approx((2, -3.0, 6.0))


def test_the_second_must_fall_and_the_first_must_not():
    still = torch.ones(8).double()
    assert find_parting(still, FALLING) is not None
    for first, second in ((RISING, RISING), (FALLING, FALLING), (FALLING, RISING), (RISING, still), (still, still)):
        assert find_parting(first, second) is None


def test_units_and_levels_change_nothing():
    since, rise, fall = find_parting(RISING, FALLING)
    assert find_parting(100 * RISING - 7, 0.01 * FALLING + 7) == pytest.approx((since, 100 * rise, 0.01 * fall))


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
