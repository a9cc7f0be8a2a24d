import json
import math

import evaluate
import numpy as np
import pyarrow.parquet
import pytest
import torch

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin import InputError, Seq2SeqPPO
from trl_rewards_plugin.metrics import REWARD_GAIN
from trl_rewards_plugin.metrics.paired_gain import paired_gain


@pytest.fixture(scope="module")
def reward_gain(evaluate_cache):
    return evaluate.load(REWARD_GAIN)


def test_numbers_by_hand(reward_gain):
    # Differences 1, 0, -1, 2, 0.5: mean 0.5; three of five improve, and the tie does not count.
    results = reward_gain.compute(predictions=[2.0, 1.0, 0.0, 3.0, 1.5], references=[1.0] * 5)
    assert (results["reward_gain"], results["share_improved"], results["n"]) == (0.5, 0.6, 5)
    low, high = results["ci95"]
    # Student's t with 4 degrees of freedom: 2.776 * sqrt(1.25 / 5) = 1.388 to either side, at least.
    assert low <= 0.5 - 1.38
    assert high >= 0.5 + 1.38


@pytest.mark.parametrize(
    "shaped", [torch.tensor, np.array, lambda scores: [torch.tensor(score) for score in scores], np.float32]
)
def test_scores_may_be_tensors_and_arrays(reward_gain, shaped):
    after, before = [1.5, 0.5, 2.0, 1.0, 0.25], [1.0, 0.5, 1.0, 0.5, 0.0]
    expected = reward_gain.compute(predictions=after, references=before)
    assert reward_gain.compute(predictions=shaped(after), references=shaped(before)) == expected


def test_an_equal_gain_everywhere_has_no_interval(reward_gain):
    before = [0.25, -1.0, 4.0]
    results = reward_gain.compute(predictions=[score + 0.5 for score in before], references=before)
    assert results == {"reward_gain": 0.5, "ci95": [None, None], "share_improved": 1.0, "n": 3}


def test_swapping_before_and_after_mirrors_the_interval():
    before, after = np.random.default_rng(0).normal(size=(2, 30))
    there, back = paired_gain(before, after), paired_gain(after, before)
    assert there["reward_gain"] == pytest.approx(-back["reward_gain"])
    assert there["ci95"] == pytest.approx([-end for end in reversed(back["ci95"])])
    assert there["share_improved"] + back["share_improved"] == 1


def test_pairs_that_were_not_scored_take_no_part(reward_gain):
    whole = reward_gain.compute(predictions=[1.0, 2.0], references=[0.5, 1.0])
    holed = reward_gain.compute(predictions=[1.0, None, 2.0, 9.0], references=[0.5, 1.0, 1.0, math.nan])
    assert holed == whole
    nothing = {"reward_gain": None, "ci95": [None, None], "share_improved": None, "n": 0}
    assert reward_gain.compute(predictions=[None], references=[1.0]) == nothing
    assert reward_gain.compute(predictions=[], references=[]) == nothing


def test_seed_and_resamples_are_the_bootstraps(reward_gain):
    after = np.random.default_rng(0).exponential(size=30)
    pairs = {"predictions": after.tolist(), "references": [0.0] * 30}
    assert reward_gain.compute(**pairs, seed=0) == reward_gain.compute(**pairs)
    assert reward_gain.compute(**pairs, seed=1) != reward_gain.compute(**pairs)
    assert reward_gain.compute(**pairs, resamples=50) != reward_gain.compute(**pairs)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"predictions": "123", "references": [1.0]}, "str '123'"),
        ({"predictions": [1.0], "references": None}, "NoneType None"),
        ({"predictions": [1.0], "references": ["1"]}, "references[0] is '1'"),
        ({"predictions": [True], "references": [1.0]}, "predictions[0] is True"),
        ({"predictions": [1.0, math.inf], "references": [1.0, 1.0]}, "predictions[1] is inf"),
        ({"predictions": [1.0], "references": [1.0], "resamples": 0}, "0"),
        ({"predictions": [1.0], "references": [1.0], "resamples": True}, "True"),
        ({"predictions": [1.0], "references": [1.0], "seed": -1}, "-1"),
    ],
)
def test_refusals(reward_gain, given, found):
    with pytest.raises(InputError) as caught:
        reward_gain.compute(**given)
    assert caught.value.found == found


def test_lists_of_different_lengths_and_nothing_at_all_are_evaluates_own_errors(reward_gain):
    with pytest.raises(ValueError, match="Mismatch in the number"):
        reward_gain.compute(predictions=[1.0], references=[1.0, 2.0])
    with pytest.raises(ValueError, match="at least once before"):
        evaluate.load(REWARD_GAIN).compute()


@pytest.mark.slow
def test_a_runs_claim_is_recomputed_from_its_own_table(tiny_run, tmp_path, reward_gain):
    settings = {**SHORT, "max_steps": 1}
    recipe = Seq2SeqPPO.from_preset(
        "tiny", model=tiny_run.model, reward=tiny_run.reward, dataset=tiny_run.dataset,
        output_dir=str(tmp_path), echo=lambda text: None, **settings,
    )  # fmt: skip
    recipe.run()
    claim = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["reward_gain"]
    rows = pyarrow.parquet.read_table(tmp_path / "completions.parquet").to_pandas()
    results = reward_gain.compute(predictions=rows["after_reward"], references=rows["before_reward"])
    assert results["reward_gain"] == claim["mean"]
    assert results["ci95"] == claim["ci95"]
    assert results["n"] == claim["n"]
