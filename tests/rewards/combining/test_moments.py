import json
import math
import statistics
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_rewards_plugin.rewards.combining.running_statistics import Moments, merged, moments_of, rescaled, z_scores

NAN = math.nan
FLOATS = st.floats(-1000, 1000, width=32)


def test_moments_by_hand():
    # mean of 1, 2, 6 is 3; squared deviations 4 + 1 + 9 = 14
    assert moments_of(torch.tensor([1.0, NAN, 2.0, 6.0])) == Moments(3, 3.0, 14.0)
    assert Moments(3, 3.0, 14.0).std == pytest.approx(math.sqrt(14 / 3))
    assert moments_of(torch.tensor([NAN])) == moments_of(torch.zeros(0)) == Moments()
    assert Moments().std == 0.0


@given(st.lists(FLOATS, min_size=1, max_size=20), st.lists(FLOATS, max_size=20))
def test_batches_merge_to_the_moments_of_all(first, second):
    found = merged(moments_of(torch.tensor(first)), moments_of(torch.tensor(second)))
    values = first + second
    assert found.count == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert found.std == pytest.approx(statistics.pstdev(values), abs=1e-6)


def test_merging_with_nothing_changes_nothing():
    some = Moments(3, 3.0, 14.0)
    assert merged(some, Moments()) == merged(Moments(), some) == some


def test_moments_pass_through_json_bit_by_bit():
    some = moments_of(torch.randn(7))
    assert Moments(**json.loads(json.dumps(asdict(some)))) == some


def test_z_scores_by_hand():
    # mean 3, std 2
    assert z_scores(torch.tensor([3.0, 7.0, 2.0]), Moments(4, 3.0, 16.0)).tolist() == [0.0, 2.0, -0.5]
    assert z_scores(torch.tensor([NAN]), Moments(4, 3.0, 16.0)).isnan().all()


def test_z_scores_of_what_they_were_learnt_from_have_mean_0_and_std_1():
    scores = 5 * torch.randn(1000) + 3
    z = z_scores(scores, moments_of(scores))
    assert z.mean().item() == pytest.approx(0, abs=1e-6)
    assert z.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_before_there_is_a_scale_only_the_mean_is_taken_off():
    assert z_scores(torch.tensor([1.5]), Moments()).tolist() == [1.5]
    assert z_scores(torch.tensor([1.5]), moments_of(torch.tensor([1.0]))).tolist() == [0.5]
    # A judge's float rounding is no spread, whatever the scale of its scores.
    for offset in (0.1, 1000.0):
        noisy = offset + 1e-7 * offset * torch.tensor([0.0, 1.0])
        assert z_scores(torch.tensor([offset + 2]), moments_of(noisy)).item() == pytest.approx(2, abs=1e-3)


def test_rescaled_by_hand():
    assert rescaled(torch.tensor([1.0, 5.0]), 1.0, 2.0).tolist() == [0.0, 2.0]
