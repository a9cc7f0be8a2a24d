"""Keeps freed memory with the process while a CPU trains: the system clears every page that it hands out again."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Parameters of mallopt, from glibc's malloc.h: free memory at the heap's end that is kept, and the size from which on
# a block is the system's own. Larger blocks than 64 MiB are: kept, they would leave holes in the heap, which made the
# peak grow by a fifth. glibc before 2.35 refuses a size above 32 MiB and would stay at its 128 KiB: hence 32 first.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_WITHIN = ((_MMAP_THRESHOLD, 2**25), (_MMAP_THRESHOLD, 2**26), (_TRIM_THRESHOLD, 2**31 - 1))
# What glibc raises the two to by itself where large blocks are freed.
_AFTER = ((_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26))


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Within it freed memory stays with the process, for its next tensors; at the end it goes back to the system."""
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":  # a GPU's memory torch keeps itself
        yield
        return
    library = ctypes.CDLL(None)
    for setting in _WITHIN:
        library.mallopt(*setting)
    try:
        yield
    finally:
        for setting in _AFTER:
            library.mallopt(*setting)
        library.malloc_trim(0)
