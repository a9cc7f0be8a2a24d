"""The next step when memory or disk space runs out. Leaves out: bad input.

Of memory the error stays the library's own; the advice is a note on it (PEP 678), printed below the traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trl_rewards_plugin.atomic import is_full_disk
from trl_rewards_plugin.errors import InputError, causes, is_out_of_memory
from trl_rewards_plugin.ppo.monitoring.out_of_memory import TooLittleMemoryError, memory_advice


@contextmanager
def advised(args: Any) -> Iterator[None]:
    """Adds to an error raised inside which of the settings `args` to change; InputError where the disk is full."""
    try:
        yield
    except (InputError, TooLittleMemoryError):  # say themselves what to do
        raise
    except Exception as error:
        full = next((cause for cause in causes(error) if is_full_disk(cause)), None)
        if full is not None:
            step = (
                "free space there, or choose another output_dir (--output_dir); save_total_limit=1 keeps one "
                "checkpoint, and --resume_from_checkpoint resumes from the last complete one"
            )
            raise InputError(f"room on the disk of {args.output_dir}", " ".join(str(full).split()), step) from error
        if is_out_of_memory(error):
            error.add_note(f"Next:     {memory_advice(args)}")
        raise
