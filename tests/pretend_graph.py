"""CUDA graphs that are none: on the CPU, by a real graph's rules.

Capturing runs the work once, writes down every operator with the very tensors that it read and wrote, and puts all of
it back: as on a GPU, a capture computes nothing, draws no random number and leaves its outputs undefined (NaN here).
Replaying runs the operators again on the same tensors and no line of Python. So what goes wrong silently on a GPU goes
wrong here: a number that was frozen, a gradient that is another tensor by now, a weight that moved, a counter that
Python keeps, an output that is read after another graph of the pool has run. What is forbidden while capturing is an
error: waiting for the device, shapes that depend on data, tensors made of Python's numbers.
Leaves out: speed, memory, streams, and a GPU's own arithmetic.
"""

from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers.utils import import_utils

aten = torch.ops.aten
_WAITS, _SHAPE = "waits for the device", "has a shape that depends on data"
_FORBIDDEN = {
    aten._local_scalar_dense.default: _WAITS,
    aten.equal.default: _WAITS,
    aten.multinomial.default: _WAITS,
    aten.nonzero.default: _SHAPE,
    aten.masked_select.default: _SHAPE,
    aten._unique2.default: _SHAPE,
    aten.repeat_interleave.Tensor: _SHAPE,
}
_INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)


class PretendGraphs:
    """A maker of pretended graphs, which share one pool.

    Attributes:
        graphs: all that were made, dropped ones too.
        replays: how often any was replayed.
    """

    def __init__(self):
        self.graphs = []
        self.replays = 0

    def capture(self, work):
        """As `CudaGraphs.capture`; the work runs once beforehand, as a warm-up on a GPU does."""
        random_state = torch.get_rng_state()
        work()
        torch.set_rng_state(random_state)
        graph = PretendGraph(self)
        with graph.capturing():
            work()
        self.graphs.append(graph)
        return graph


class RunEagerly:
    """A maker whose "graphs" run the work itself: what a replay must equal to the last bit."""

    def capture(self, work):
        """As `CudaGraphs.capture`."""
        graph = RunEagerly()

        def replay():
            with _said_to_capture():
                work()

        graph.replay, graph.reset = replay, lambda: None
        return graph


class PretendGraph:
    """Operators that were written down, and the tensors that they work on."""

    def __init__(self, maker):
        self.maker = maker
        self.calls = []  # (operator, arguments, keyword arguments, outputs)
        self.own = {}  # address -> a tensor made while capturing: the pool's

    @contextmanager
    def capturing(self):
        """Within it operators are written down; afterwards all is as it was."""
        recorder, random_state = _Recorder(self), torch.get_rng_state()
        try:
            with recorder, _said_to_capture():
                yield
        finally:
            torch.set_rng_state(random_state)
            recorder.put_back()
        self.poison()

    def replay(self):
        """Runs every operator again."""
        if not self.calls:
            raise RuntimeError("this graph was reset")
        self.maker.replays += 1
        for other in self.maker.graphs:
            if other is not self:
                other.poison()
        # Autocast has had its say: what it cast is among the operators.
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch._C._DisableTorchDispatch():
            for operator, args, kwargs, outputs in self.calls:
                fresh = operator(*args, **kwargs)
                for kept, new in zip(tree_leaves(outputs), tree_leaves(fresh), strict=True):
                    if isinstance(kept, Tensor) and _address(kept) != _address(new):
                        kept.copy_(new)

    def reset(self):
        """Forgets everything."""
        self.calls, self.own = [], {}

    def poison(self):
        """What the graph left in the pool is undefined once another has run."""
        with torch.no_grad():
            for tensor in self.own.values():
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))
                elif tensor.dtype != torch.bool:
                    tensor.zero_()


class _Recorder(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph = graph
        self.before = {}  # address -> (a storage that was written to, as bytes, and its copy)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._refuse_forbidden(operator, args)
        for argument, value in _arguments(operator, args, kwargs):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(value):
                    self._keep(tensor)
        outputs = operator(*args, **kwargs)
        given = {_address(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor) and _address(tensor) not in given:
                self.graph.own[_address(tensor)] = tensor.detach()
        self.graph.calls.append((operator, *tree_map_only(Tensor, Tensor.detach, (args, kwargs, outputs))))
        return outputs

    def _refuse_forbidden(self, operator, args):
        reason = _FORBIDDEN.get(operator)
        if operator is aten.lift_fresh.default and args[0].dim() > 0:  # 0-d ones are numbers on the host
            reason = "makes a tensor of Python's numbers"
        if operator in _INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1]):
            reason = _SHAPE
        if reason:
            raise RuntimeError(f"operation not permitted while capturing: {operator} {reason}")

    def _keep(self, tensor):
        if isinstance(tensor, Tensor) and _address(tensor) not in self.graph.own | self.before:
            whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            self.before[_address(tensor)] = (whole, whole.clone())

    def put_back(self):
        """Undoes every write."""
        for whole, copy in self.before.values():
            whole.copy_(copy)


@contextmanager
def _said_to_capture():
    """Within it transformers takes the branches that it takes while capturing: it builds masks that hide nothing."""
    asked, import_utils.is_cuda_stream_capturing = import_utils.is_cuda_stream_capturing, lambda: True
    try:
        yield
    finally:
        import_utils.is_cuda_stream_capturing = asked


def _arguments(operator, args, kwargs):
    schema = operator._schema.arguments
    yield from zip(schema, args, strict=False)
    yield from ((argument, kwargs[argument.name]) for argument in schema if argument.name in kwargs)


def _address(tensor):
    return tensor.untyped_storage().data_ptr()
