"""Gates by hand, and in a combination, a reward file and the log."""

import torch

from trl_rewards_plugin.rewards.combining.gate import gated, passes

NAN = float("nan")


def test_a_text_passes_where_every_gating_score_reaches_its_threshold():
    raw = {"grammar": torch.tensor([0.0, 0.5, -0.1, 2.0, NAN]), "length": torch.tensor([1.0, 0.4, 1.0, NAN, 1.0])}
    assert passes(raw, {"grammar": 0.0}).tolist() == [True, True, False, True, False]
    assert passes(raw, {"grammar": 0.0, "length": 0.5}).tolist() == [True, False, False, False, False]


def test_behind_the_gate_is_the_floor_and_a_missing_score_stays_missing():
    scores = gated(torch.tensor([3.0, 3.0, NAN, NAN]), torch.tensor([True, False, True, False]), -1.0)
    torch.testing.assert_close(scores, torch.tensor([3.0, -1.0, NAN, NAN]), equal_nan=True)
