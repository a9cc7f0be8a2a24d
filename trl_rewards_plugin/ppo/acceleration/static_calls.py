"""Work over fixed buffers: captured as a graph on first use, replayed after that, and run eagerly where that fails.

A graph belongs to shapes, to where weights and gradients lie, and to all that Python knew while it was captured; so
does its key. Whatever goes wrong with one, the run continues.
"""

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.acceleration.fixed_shapes import FEW, FREE, fixed_shapes
from trl_rewards_plugin.ppo.acceleration.lower_precision import autocast_dtype
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.distributed import asks_for_sharding

Tensors = dict[str, Tensor]
Inputs = Mapping[str, Tensor | None]
_logger = logging.getLogger(__name__)


def maker_for(device: torch.device) -> "CudaGraphs | None":
    """What makes graphs on a device, if anything; tests put one in its place that follows a graph's rules on a CPU."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Graphs of one device in one memory pool: what one left inside it is undefined once another has run."""

    def __init__(self, device: torch.device):
        self._device, self._pool = device, cast(Any, None)
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


class GraphMismatchError(RuntimeError):
    """A replay gave other numbers than the eager pass."""


class Work(ABC):
    """Something that reads and writes the same buffers each time."""

    graph: torch.cuda.CUDAGraph | None = None  # once it is captured

    @abstractmethod
    def run(self) -> None:
        """What is captured: it never waits for the device, and branches on nothing that a replay may find changed."""

    @abstractmethod
    def eagerly(self) -> Tensors:
        """What a run is to give, computed eagerly; every buffer is left as it was."""

    @abstractmethod
    def moving(self) -> list[Tensor]:
        """The buffers that a run updates from their previous values; all others it overwrites."""

    @abstractmethod
    def compared(self, eager: Tensors) -> tuple[Tensors, Tensors]:
        """What `eagerly` gave, and what a run has given since, in a form that can be compared."""

    def drop(self) -> None:
        if self.graph is not None:
            self.graph.reset()
            self.graph = None


class StaticCalls:
    """Runs functions of tensors, and other work, by graphs where there are any.

    Args:
        maker: makes the graphs; None runs everything eagerly.
        tolerance: most that a first replay may differ from the eager pass, absolute and relative: what rounding in
            another order may do, which is far less than what a wrong graph does.
        most: how many graphs are kept; the least recently used one gives way.
        fixed: pad to a few shapes even without graphs, because a GPU's kernels plan anew for each shape.
    """

    def __init__(self, maker: CudaGraphs | None = None, tolerance: float = 1e-3, most: int = 64, fixed: bool = False):
        self.maker, self.tolerance, self._most = maker, tolerance, most
        self.fixed = fixed or maker is not None
        self.widths = FEW if self.fixed else FREE  # what prompts and responses are to be padded to
        self.eager: set[str] = set()  # names of what turned out not to run by graphs
        self._kept: OrderedDict[tuple[Hashable, ...], tuple[Hashable, Any]] = OrderedDict()
        self._gradients: dict[nn.Parameter, Tensor] = {}

    def by_graph(self, name: str) -> bool:
        return self.maker is not None and name not in self.eager

    def __call__(
        self, name: str, function: Callable[..., Inputs], inputs: Inputs, model: nn.Module, known: Hashable = ()
    ) -> Tensors:
        """`function(**inputs)`; a backward pass inside adds to the gradients of the model's parameters, as ever.

        Args:
            name: tells functions apart, also in the log.
            function: reads the model's weights and tensors by name, and returns tensors by name, of shapes that its
                inputs' shapes alone decide, None for what is left out; it never waits for the device.
            known: what else decides what it computes; settings that Python knows.
        """
        if not self.fixed:
            return _there(function(**inputs))
        if not self.by_graph(name):
            return _run(function, inputs)
        shapes = tuple((key, None if value is None else (value.shape, value.dtype)) for key, value in inputs.items())
        call = self.kept(name, (known, shapes), model, lambda: _Call(self, function, inputs, model))
        call.fill(inputs)
        self.attach(call.learns)
        self.run(name, call)
        return {key: value.clone() for key, value in call.outputs.items()}  # the next replay writes to these again

    def run(self, name: str, work: Work) -> None:
        """Runs work by its graph; after an error it, and its name from then on, runs eagerly from where it was."""
        # Eagerly only after the failed attempt has ended: it holds copies, and its error's traceback tensors.
        if not self.by_graph(name) or not self._replayed(name, work):
            work.run()

    def _replayed(self, name: str, work: Work) -> bool:
        """Whether the work's graph, captured where there is none, has run; else its buffers are as they were."""
        before: list[Tensor] = []
        captures = work.graph is None
        try:
            if work.graph is None:
                eager = work.eagerly()
                before = copies(work.moving())
                work.graph = cast(CudaGraphs, self.maker).capture(work.run)
                restore(work.moving(), before)
                work.graph.replay()
                self._check(*work.compared(eager))  # the first replay must give what the eager pass does
            else:
                work.graph.replay()
            return True
        except Exception as error:
            if before:
                restore(work.moving(), before)
            # The memory of the graphs' pool is given back with the last of them; what is too large to be compared
            # with its eager pass takes nothing from the others.
            everything = isinstance(error, torch.OutOfMemoryError) and not (captures and not before)
            self.give_up(name, f"{type(error).__name__}: {error}", everything=everything)
            return False

    def kept(
        self, name: str, known: Hashable, model: nn.Module, make: Callable[[], Any], most: int | None = None
    ) -> Any:
        """What was made before for this name, this model as it is, and what is known; else `make()`.

        That makes something with a `drop()`; at most `most` of this name are kept, where each holds much memory.
        """
        # What Python knows while the model runs: gradients, precision, training mode, adapters on or off.
        layers: list[Any] = [part for part in model.modules() if hasattr(type(part), "_disable_adapters")]
        adapters = tuple((layer.disable_adapters, *layer.active_adapters, *layer.merged_adapters) for layer in layers)
        modes = (torch.is_grad_enabled(), autocast_dtype(model), model.training, adapters)
        key = (name, known, id(model), modes)
        places = tuple((weight.data_ptr(), weight.requires_grad) for weight in model.parameters())
        if key in self._kept and self._kept[key][0] != places:
            _logger.warning("%s: the weights of the model have moved; its graph is captured again", name)
            self._drop(key)
        if key not in self._kept:
            of_name = [other for other in self._kept if other[0] == name]
            if most is not None and len(of_name) >= most:
                self._drop(of_name[0])
            while len(self._kept) >= self._most:
                self._drop(next(iter(self._kept)))
            self._kept[key] = (places, make())
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def give_up(self, name: str, reason: str, *, everything: bool = False) -> None:
        """Runs what has this name, or everything, eagerly from now on, and says why."""
        message = "%s runs without a CUDA graph for the rest of this run. %s"
        _logger.warning(message, "Everything" if everything else name, reason)
        self.eager.add(name)
        for key in [key for key in self._kept if everything or key[0] == name]:
            self._drop(key)
        if everything:
            self.maker = None
            self._gradients.clear()

    def _drop(self, key: tuple[Hashable, ...]) -> None:
        self._kept.pop(key)[1].drop()

    def _check(self, eager: Tensors, replayed: Tensors) -> None:
        for name, value in eager.items():
            if not torch.allclose(replayed[name], value, self.tolerance, self.tolerance, equal_nan=True):
                difference = (replayed[name].double() - value.double()).abs().max().item()
                raise GraphMismatchError(f"{name} of the first replay differs from the eager pass by {difference:.1e}")

    def attach(self, weights: Iterable[nn.Parameter]) -> None:
        """Gives parameters the gradients that graphs work on: 0 where there was none, as after an optimizer step."""
        empty = []
        for weight in weights:
            buffer = self._gradients.get(weight)
            if buffer is None:
                buffer = self._gradients[weight] = torch.zeros_like(weight)
            if weight.grad is None:
                empty.append(buffer)
            elif weight.grad is not buffer:
                buffer.copy_(weight.grad)
            weight.grad = buffer
        if empty:
            torch._foreach_zero_(empty)


class _Call(Work):
    def __init__(self, calls: StaticCalls, function: Callable[..., Inputs], inputs: Inputs, model: nn.Module):
        self._calls, self._function, self._model = calls, function, model
        self._inputs = {name: None if value is None else value.clone() for name, value in inputs.items()}
        self.outputs: Tensors = {}  # name -> buffer that a run writes
        self.learns: list[nn.Parameter] = []  # what its backward pass gives a gradient

    def fill(self, inputs: Inputs) -> None:
        for name, buffer in self._inputs.items():
            if buffer is not None:
                buffer.copy_(cast(Tensor, inputs[name]))

    def run(self) -> None:
        for name, value in _run(self._function, self._inputs).items():
            if name not in self.outputs:  # where the eager pass had failed
                self.outputs[name] = torch.empty_like(value)
            self.outputs[name].copy_(value.detach())

    def eagerly(self) -> Tensors:
        # Found out with it are the outputs' shapes, and what learns.
        earlier: dict[nn.Parameter, Any] = {weight: weight.grad for weight in self._model.parameters()}
        try:
            for weight in earlier:
                weight.grad = None
            results = _run(self._function, self._inputs)
            added = {weight: weight.grad for weight in earlier if weight.grad is not None}
        finally:
            for weight, gradient in earlier.items():
                weight.grad = gradient
        self.outputs = {name: torch.zeros_like(value) for name, value in results.items()}
        self.learns = list(added)
        sums = [value if earlier[weight] is None else value + earlier[weight] for weight, value in added.items()]
        self._calls.attach(self.learns)
        return {**{name: value.detach() for name, value in results.items()}, **_norm(sums)}

    def moving(self) -> list[Tensor]:
        return [cast(Tensor, weight.grad) for weight in self.learns]

    def compared(self, eager: Tensors) -> tuple[Tensors, Tensors]:
        return eager, self.outputs | _norm(self.moving())


def static_calls(args: Seq2SeqPPOConfig, model: nn.Module) -> StaticCalls:
    """How a model's passes run under a config; InputError where `cuda_graphs=True` and there can be no graphs."""
    sharded = asks_for_sharding(args)
    against = {
        "cuda_graphs=False": args.cuda_graphs is False,
        "several processes, or sharded weights": args.world_size > 1 or sharded,
        "gradient checkpointing": args.checkpoints_activations,
    }
    maker, reason = maker_for(args.device), next((reason for reason, holds in against.items() if holds), None)
    if args.cuda_graphs and (reason or maker is None):
        expected = "a single process on a CUDA device, without gradient checkpointing, for cuda_graphs=True"
        step = "leave cuda_graphs out: graphs are used where they can be"
        raise InputError(expected, reason or f"the device {args.device}", step)
    if maker is not None and reason and args.cuda_graphs is None:
        _logger.info("CUDA graphs are off: %s", reason)
    tolerance = 1e-3 if not args.bf16 and next(model.parameters()).element_size() == 4 else 0.1
    fixed = args.device.type == "cuda" and args.world_size == 1 and not sharded
    return StaticCalls(None if reason else maker, tolerance, fixed=fixed)


def _run(function: Callable[..., Inputs], inputs: Inputs) -> Tensors:
    """The function, as it may be captured."""
    kind = next(value.device.type for value in inputs.values() if value is not None)
    with fixed_shapes(), uncached_autocast(kind):
        return _there(function(**inputs))


def _there(values: Inputs) -> Tensors:
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def uncached_autocast(kind: str) -> Iterator[None]:
    """Autocast as it is on a kind of device, without its cache of weights.

    What lies there from before would be freed while a graph still reads it, and what a graph leaves there is undefined
    later on. Cleared, too: a prepared model switches the cache on again for its own pass.
    """
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    torch.clear_autocast_cache()
    try:
        with torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False):
            yield
    finally:
        torch.clear_autocast_cache()


def copies(buffers: Sequence[Tensor]) -> list[Tensor]:
    """What buffers hold now."""
    return [buffer.clone() for buffer in buffers]


def restore(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Puts what `copies` returned back into the buffers."""
    with torch.no_grad():
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)


def _norm(gradients: Sequence[Tensor]) -> Tensors:
    return {"gradient norm": torch.nn.utils.get_total_norm(gradients)} if gradients else {}
