"""The next step when memory or disk space runs out. Leaves out: bad input.

Of memory the error stays the library's own; the advice is a note on it (PEP 678), printed below the traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trl_rewards_plugin.atomic import is_full_disk
from trl_rewards_plugin.errors import InputError, causes


@contextmanager
def advised(args: Any) -> Iterator[None]:
    """Adds to an error raised inside which of the settings `args` to change, where that is known.

    Raises:
        InputError: the disk is full.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        full = next((cause for cause in causes(error) if is_full_disk(cause)), None)
        if full is not None:
            step = (
                "free space there, or choose another output_dir (--output_dir); save_total_limit=1 keeps one "
                "checkpoint, and --resume_from_checkpoint resumes from the last complete one"
            )
            raise InputError(f"room on the disk of {args.output_dir}", " ".join(str(full).split()), step) from error
        if any(map(_is_out_of_memory, causes(error))):
            error.add_note(
                f"Next:     halve per_device_train_batch_size ({args.per_device_train_batch_size}) and double "
                f"gradient_accumulation_steps ({args.gradient_accumulation_steps}): the same rollout in smaller "
                f"batches; then lower max_prompt_length ({args.max_prompt_length}) or response_length "
                f"({args.response_length}); then activation_checkpointing, freeze_encoder or use_peft, and "
                "offload='cpu' for the rewards"
            )
        raise


def _is_out_of_memory(error: BaseException) -> bool:
    """On an accelerator, or on the CPU, where torch says so only in the message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
