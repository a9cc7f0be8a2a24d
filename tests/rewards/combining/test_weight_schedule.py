from types import SimpleNamespace

import pytest
from transformers import TrainerState

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.combining.combination import Combination, training_progress


def test_progress_is_the_share_of_steps_done():
    assert training_progress(TrainerState(global_step=0, max_steps=8)) == 0.0
    assert training_progress(TrainerState(global_step=2, max_steps=8)) == 0.25
    assert training_progress(TrainerState(global_step=9, max_steps=8)) == 1.0


@pytest.mark.parametrize("state", [None, object(), SimpleNamespace(global_step=1)])
def test_a_call_without_trainer_state_is_refused(state):
    with pytest.raises(InputError, match="trainer_state=, which weight_schedule and constraints read"):
        training_progress(state)


def test_a_state_from_before_training_is_refused():
    with pytest.raises(InputError, match="max_steps=0"):
        training_progress(TrainerState())


def test_interpolation_by_hand():
    def factors(points, *places):
        combination = Combination.checked(["a"], [2.0], "weighted_sum", weight_schedule={"a": points})
        return [combination.weights_at(at)[0] / 2 for at in places]

    points = {0.5: 1.0, 0.25: 0.0, 1.0: 0.5}
    assert factors(points, 0.0, 0.25, 0.375, 0.5, 0.75, 1.0) == [0.0, 0.0, 0.5, 1.0, 0.75, 0.5]
    assert factors({0.5: 2.0}, 0.0, 1.0) == [2.0, 2.0]
