"""Where a classifier runs: devices, dtypes, memory."""

import gc
import os
from typing import Any

import torch

from trl_rewards_plugin.errors import InputError


def own_device() -> torch.device:
    """This process's own accelerator (by LOCAL_RANK under a launcher, else the current one), or the CPU."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not torch.accelerator.is_available():
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK", -1))
    # A launcher may also show each process a single device; then the rank does not index it.
    within = 0 <= rank < torch.accelerator.device_count()
    return torch.device(accelerator.type, rank if within else torch.accelerator.current_device_index())


def as_device(device: Any) -> torch.device | None:
    """`device` as torch has it, InputError where it has none such; None stays None. It need not be there yet."""
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        step = "leave it out for this process's own device"
        raise InputError("a device such as 'cpu', 'cuda' or 'cuda:1'", repr(device), step) from error


def check_present(device: torch.device) -> None:
    """Refuses with an InputError an accelerator that this process does not see."""
    if device.type == "cpu":  # to ask for an accelerator would start its driver
        return
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if found is not None and found.type == device.type else 0
    if (device.index or 0) >= count:
        here = "only the CPU" if found is None else f"{torch.accelerator.device_count()} of type {found.type}"
        raise InputError(f"the device {str(device)!r}", here, "give device='cpu', or leave it out")


def as_dtype(dtype: Any) -> torch.dtype | None:
    """A floating dtype by itself or its name, InputError for anything else; None stays None."""
    found = getattr(torch, dtype, "") if isinstance(dtype, str) else dtype
    if found is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise InputError("dtype as a floating torch.dtype or its name", repr(dtype), "for example dtype='bfloat16'")
    return found


def precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """On for the half dtypes, which keeps sums in float32; off for others, also inside a trainer's own autocast."""
    half = dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype=dtype if half else None, enabled=half)


def free_memory(device: torch.device) -> None:
    """Gives back what no object holds any longer: on an accelerator to the other users of its memory as well."""
    gc.collect()
    if device.type != "cpu":
        torch.accelerator.empty_cache()
