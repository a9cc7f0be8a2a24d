"""The settings that help where memory runs out while a run samples or learns. Leaves out: rewards' own memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trl_rewards_plugin.errors import InputError, is_out_of_memory


class TooLittleMemoryError(torch.OutOfMemoryError):
    """Its message: what memory was needed for, torch's own, and the settings that help."""


def memory_advice(args: Any) -> str:
    """The settings `args` to change, the one that helps most first."""
    return (
        f"halve per_device_train_batch_size ({args.per_device_train_batch_size}) and double "
        f"gradient_accumulation_steps ({args.gradient_accumulation_steps}): the same rollout in smaller batches; "
        f"then lower max_prompt_length ({args.max_prompt_length}) or response_length ({args.response_length}); "
        "then activation_checkpointing (gradient_checkpointing before transformers 5.23), freeze_encoder or use_peft, "
        "and offload='cpu' for the rewards"
    )


@contextmanager
def enough_memory(args: Any, work: str) -> Iterator[None]:
    """Within it an error of too little memory for `work` becomes a TooLittleMemoryError: the settings that help."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = str(error).strip().split("\n")[0] or type(error).__name__
        expected = f"memory for {work}, {args.micro_batch_size} responses at a time"
        raise TooLittleMemoryError(str(InputError(expected, found, memory_advice(args)))) from error
