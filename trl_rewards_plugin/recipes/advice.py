"""The next step when memory or disk space runs out. Leaves out: bad input.

The error stays the library's own; the advice is a note on it (PEP 678), which Python prints below the traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    # Not at the top: it loads torch.
    from trl_rewards_plugin.ppo.monitoring.out_of_memory import TooLittleMemoryError, is_out_of_memory, memory_advice

    if isinstance(error, TooLittleMemoryError):  # says so itself
        return None
    if any(map(is_out_of_memory, causes(error))):
        return memory_advice(args)
    if any(map(_is_full_disk, causes(error))):
        return (
            f"free space on the disk of {args.output_dir}, or choose another output_dir (--output_dir); "
            "save_total_limit=1 keeps one checkpoint, and --resume_from_checkpoint resumes from the last complete one"
        )
    return None


def _is_full_disk(error: BaseException) -> bool:
    """By its number, or by the message of safetensors or Arrow."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or "No space left on device" in str(error)
