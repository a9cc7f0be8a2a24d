"""The next step when memory or disk space runs out. Leaves out: bad input.

The error stays the library's own; the advice is a note on it (PEP 678), which Python prints below the traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trl_rewards_plugin.errors import causes
from trl_rewards_plugin.ppo.monitoring.out_of_memory import TooLittleMemoryError, is_out_of_memory, memory_advice


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
    if isinstance(error, TooLittleMemoryError):  # says so itself
        return None
    for cause in causes(error):
        if is_out_of_memory(cause):
            return memory_advice(args)
        # By its number, or by the message of safetensors or Arrow.
        is_full = getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if is_full or "No space left on device" in str(cause):
            return (
                f"free space on the disk of {args.output_dir}, or choose another output_dir (--output_dir); "
                "save_total_limit=1 keeps one checkpoint, and --resume_from_checkpoint resumes from the last complete "
                "one"
            )
    return None
