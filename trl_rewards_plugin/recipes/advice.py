"""The next step when memory or disk space runs out. Leaves out: bad input.

The error stays the library's own; the advice is a note on it (PEP 678), which Python prints below the traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trl_rewards_plugin.errors import causes


@contextmanager
def advised(args: Any) -> Iterator[None]:
    """Adds to an error raised inside which of the settings `args` to change, where that is known."""
    try:
        yield
    except Exception as error:
        step = next_step(error, args)
        if step is not None:
            error.add_note(f"Next:     {step}")
        raise


def next_step(error: BaseException, args: Any) -> str | None:
    """What to change; None if neither the error nor a cause of it is about memory or disk space."""
    for cause in causes(error):
        # On the CPU torch says so only in the message, as safetensors and Arrow do of a full disk.
        if isinstance(cause, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(cause):
            return (
                f"halve per_device_train_batch_size ({args.per_device_train_batch_size}) and double "
                f"gradient_accumulation_steps ({args.gradient_accumulation_steps}): the same rollout in smaller "
                f"batches; then lower max_prompt_length ({args.max_prompt_length}) or response_length "
                f"({args.response_length}); then activation_checkpointing, freeze_encoder or use_peft, and "
                "offload='cpu' for the rewards"
            )
        is_full = getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if is_full or "No space left on device" in str(cause):
            return (
                f"free space on the disk of {args.output_dir}, or choose another output_dir (--output_dir); "
                "save_total_limit=1 keeps one checkpoint, and --resume_from_checkpoint resumes from the last complete "
                "one"
            )
    return None
