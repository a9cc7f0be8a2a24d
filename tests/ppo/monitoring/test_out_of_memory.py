"""Too little memory while sampling or learning names the settings that help; torch's own error is its cause."""

import pytest
import torch

from tests.ppo.test_trainer import make_trainer
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.monitoring.out_of_memory import TooLittleMemoryError, enough_memory


@pytest.mark.parametrize(("in_training", "work"), [(False, "sampling"), (True, "the update")])
def test_a_model_that_runs_out_of_memory_names_the_settings_that_help(tmp_path, in_training, work):
    trainer = make_trainer(str(tiny_t5(tmp_path / "t5")), tmp_path / "run", gradient_accumulation_steps=2)
    original = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of it")

    def run_out(*_):
        if trainer.model.training == in_training:
            raise original

    trainer.policy_model.get_decoder().register_forward_pre_hook(run_out)
    with pytest.raises(TooLittleMemoryError) as caught:
        trainer.train()
    expected, found, step = str(caught.value).strip().split("\n")
    assert expected == f"Expected: memory for {work}, 4 responses at a time"
    assert found == "Found:    CUDA out of memory. Tried to allocate 2.00 GiB."
    assert step.startswith(
        "Next:     halve per_device_train_batch_size (4) and double gradient_accumulation_steps (2)"
    )
    assert "activation_checkpointing" in step
    assert caught.value.__cause__ is original


def test_other_errors_are_left_alone():
    with pytest.raises(ValueError, match="odd"), enough_memory(None, "sampling"):
        raise ValueError("odd")
