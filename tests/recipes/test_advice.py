import errno

import pytest
import torch

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO, advised


@pytest.fixture
def args(tmp_path):
    return Seq2SeqPPOConfig(output_dir=str(tmp_path / "run"), gradient_accumulation_steps=3, **SHORT)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_names_the_settings_that_cost_it(args, error):
    with pytest.raises(type(error)) as caught, advised(args):
        raise error
    (step,) = caught.value.__notes__
    assert "halve per_device_train_batch_size (8) and double gradient_accumulation_steps (3)" in step
    assert "max_prompt_length (512) or response_length (8)" in step


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 25987136 vs 25987024"),
    ],
)
def test_a_full_disk_names_where_it_is(args, error):
    with pytest.raises(InputError, match=f"room on the disk of {args.output_dir}\n") as caught, advised(args):
        raise error
    assert "--resume_from_checkpoint" in caught.value.next_step
    with pytest.raises(InputError, match="room for this") as caught, advised(args):
        raise InputError("room for this", "No space left on device", "more")
    assert caught.value.next_step == "more"


def test_other_failures_are_left_alone(args):
    with pytest.raises(RuntimeError, match="odd") as caught, advised(args):
        raise RuntimeError("odd")
    assert getattr(caught.value, "__notes__", []) == []


@pytest.mark.parametrize("job", ["run", "dry_run"])
def test_a_run_that_the_memory_is_too_small_for_says_so_once(tiny_run, args, job):
    def greedy_judge(completions, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    recipe = Seq2SeqPPO(tiny_run.model, greedy_judge, tiny_run.dataset, args=args, echo=lambda text: None)
    with pytest.raises(RuntimeError, match="CUDA out of memory") as caught:
        getattr(recipe, job)()
    (note,) = caught.value.__notes__
    assert note.startswith("Next:     halve per_device_train_batch_size (8)")
