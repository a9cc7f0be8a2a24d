"""The one place that makes graphs: work on fixed buffers, recorded once and replayed without Python.

Tests put a pretended maker in the place of `maker_for`, which follows a CUDA graph's rules on the CPU.
Leaves out: what is captured, when, and what happens where a capture fails (static_calls.py).
"""

from collections.abc import Callable
from typing import Any

import torch


def maker_for(device: torch.device) -> "CudaGraphs | None":
    """What makes graphs on a device; None where there are none."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Graphs of one device in one memory pool: what one left inside it is undefined once another has run."""

    def __init__(self, device: torch.device):
        self._device = device
        self._pool: Any = None
        self._side: torch.cuda.Stream | None = None  # one for all: libraries keep a workspace for each

    def capture(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """Records `work`, which reads and writes the same tensors every time and never waits for the device.

        It runs beforehand, to warm up: what it leaves in its buffers is undefined afterwards. The device's random
        state is left as it was, so that a run that captures at another step draws the same numbers.
        """
        state = torch.cuda.get_rng_state(self._device)
        current = torch.cuda.current_stream(self._device)
        side = self._side = self._side or torch.cuda.Stream(self._device)
        try:
            side.wait_stream(current)
            with torch.cuda.stream(side):
                work()  # libraries set themselves up on first use, which is forbidden while capturing
            current.wait_stream(side)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # A data loader's thread may pin memory meanwhile: only this thread's forbidden calls count.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        except Exception:
            self._pool = None  # what a capture that failed leaves of its pool is not for the next one
            raise
        finally:
            torch.cuda.set_rng_state(state, self._device)
        return graph
