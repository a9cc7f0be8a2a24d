"""Functions of tensors over fixed buffers: captured as a graph on first use, replayed after that.

A GPU spends most of a small model's time waiting for Python; a graph needs none. What is captured is the very
function that runs eagerly. A graph belongs to shapes, to where weights and gradients lie, and to everything that
Python knew while it was captured: all of that is in its key. It checks itself: the first replay is compared with the
eager pass. Whatever goes wrong, the run goes on eagerly and the log says why, once.
Leaves out: how a graph is made (graphs.py), and which functions are run this way.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from trl_rewards_plugin.ppo.acceleration.fixed_shapes import FEW, FREE, fixed_shapes
from trl_rewards_plugin.ppo.acceleration.graphs import Graph, GraphMaker

Tensors = dict[str, Tensor]
Inputs = Mapping[str, Tensor | None]
Function = Callable[..., Mapping[str, Tensor]]
_logger = logging.getLogger(__name__)


class GraphMismatchError(RuntimeError):
    """A replay gave other numbers than the eager pass."""


class Captured(Protocol):
    """Something with graphs of its own."""

    def drop(self) -> None:
        """Gives them up."""


AnyCaptured = TypeVar("AnyCaptured", bound=Captured)


class StaticCalls:
    """Runs functions of tensors, by graphs where there are any.

    Args:
        maker: makes the graphs; None runs everything eagerly.
        tolerance: most that a first replay may differ from the eager pass, absolute and relative: what rounding in
            another order may do, which is far less than what a wrong graph does.
        most: so many graphs are kept; the least recently used one gives way.
        fixed: tensors come in few shapes even without graphs, for which a GPU's kernels plan anew.

    Attributes:
        widths: what prompts and responses are to be padded to.
    """

    def __init__(self, maker: GraphMaker | None = None, tolerance: float = 1e-3, most: int = 64, fixed: bool = False):
        self.maker, self.tolerance, self._most = maker, tolerance, most
        self.fixed = fixed or maker is not None
        self.widths = FEW if self.fixed else FREE
        self._kept: OrderedDict[tuple[Hashable, ...], tuple[Hashable, Captured]] = OrderedDict()
        self._gradients: dict[nn.Parameter, Tensor] = {}

    def __call__(
        self,
        name: str,
        function: Function,
        inputs: Mapping[str, Tensor | None],
        model: nn.Module,
        known: Hashable = (),
    ) -> Tensors:
        """`function(**inputs)`: the same numbers, whichever way it runs.

        A backward pass inside adds to the gradients of the model's parameters, as it would eagerly.

        Args:
            name: tells functions apart, also in the log.
            function: takes tensors by name and returns tensors by name, whose shapes depend on its inputs' shapes
                alone; it never waits for the device.
            inputs: its tensors; None where one is left out.
            model: the module whose weights it reads.
            known: what else decides what it computes; settings that Python knows.
        """
        if not self.fixed:
            return dict(function(**inputs))
        if self.maker is None:
            return _run(function, inputs)
        call = self.kept(name, (known, _shapes(inputs)), model, lambda: _Call(inputs))
        if call.graph is None:
            return self._first(name, call, function, model)
        with self.giving_up_on_errors(f"{name}: its graph was replayed"):
            self._attach(call.learns)
            call.fill(inputs)
            call.graph.replay()
            return _copies(call.outputs)
        return _run(function, inputs)

    def kept(
        self, name: str, known: Hashable, model: nn.Module, make: Callable[[], AnyCaptured], most: int | None = None
    ) -> AnyCaptured:
        """What was made before for this name, this model as it is, and what is known; else `make()`.

        Args:
            most: so many of this name are kept, where each holds much memory.
        """
        key, places = (name, known, id(model), _modes(model)), _places(model)
        if key in self._kept and self._kept[key][0] != places:
            _logger.warning("%s: the weights of the model have moved, its graph is captured again", name)
            self._drop(key)
        if key not in self._kept:
            of_name = [other for other in self._kept if other[0] == name]
            if most is not None and len(of_name) >= most:
                self._drop(of_name[0])
            while len(self._kept) >= self._most:
                self._drop(next(iter(self._kept)))
            self._kept[key] = (places, make())
        self._kept.move_to_end(key)
        return cast(AnyCaptured, self._kept[key][1])

    def give_up(self, reason: str) -> None:
        """Runs everything eagerly from now on, and says why."""
        _logger.warning("CUDA graphs are off for the rest of this run. %s", reason)
        self.maker = None
        while self._kept:
            self._drop(next(iter(self._kept)))
        self._gradients.clear()

    @contextmanager
    def giving_up_on_errors(self, doing: str) -> Iterator[None]:
        """Within it an error ends the use of graphs instead of the run."""
        try:
            yield
        except Exception as error:
            self.give_up(f"{doing}, {type(error).__name__}: {error}")

    def _drop(self, key: tuple[Hashable, ...]) -> None:
        self._kept.pop(key)[1].drop()

    def _first(self, name: str, call: "_Call", function: Function, model: nn.Module) -> Tensors:
        """The eager pass; then the graph is captured, and its first replay must give the same."""
        before = self._take_gradients(model)
        results = _copies(_run(function, call.inputs))
        gradients = self._take_gradients(model)
        call.outputs = {name: torch.zeros_like(value) for name, value in results.items()}
        call.learns = list(gradients)

        def work() -> None:
            for name, value in _run(function, call.inputs).items():
                call.outputs[name].copy_(value.detach())

        try:
            self._attach(call.learns)
            assert self.maker is not None
            call.graph = self.maker.capture(work)
            self._clear(call.learns)
            call.graph.replay()
            replayed = [self._gradients[weight] for weight in call.learns]
            self.check(results | _norm(gradients.values()), call.outputs | _norm(replayed))
            results, gradients = _copies(call.outputs), dict(zip(call.learns, replayed, strict=True))
        except Exception as error:
            self.give_up(f"{name} could not be captured: {type(error).__name__}: {error}")
        for weight in before.keys() | gradients.keys():
            now, earlier = gradients.get(weight), before.get(weight)
            weight.grad = earlier if now is None else now if earlier is None else now.add_(earlier)
        return results

    def check(self, eager: Mapping[str, Tensor], replayed: Mapping[str, Tensor]) -> None:
        """Refuses a replay whose numbers are not those of the eager pass.

        Raises:
            GraphMismatchError: names what differs, and by how much.
        """
        for name, value in eager.items():
            if not torch.allclose(replayed[name], value, self.tolerance, self.tolerance, equal_nan=True):
                difference = (replayed[name].double() - value.double()).abs().max().item()
                raise GraphMismatchError(f"{name} of the first replay differs from the eager pass by {difference:.1e}")

    def _take_gradients(self, model: nn.Module) -> dict[nn.Parameter, Tensor]:
        """The gradients that there are, taken away from the parameters."""
        taken = {}
        for weight in model.parameters():
            if weight.grad is not None:
                taken[weight] = weight.grad.clone() if weight.grad is self._gradients.get(weight) else weight.grad
                weight.grad = None
        return taken

    def _attach(self, weights: Iterable[nn.Parameter]) -> None:
        """Gives parameters the gradients that graphs add to: 0 where there was none, as after an optimizer step."""
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

    def _clear(self, weights: list[nn.Parameter]) -> None:
        if weights:
            torch._foreach_zero_([self._gradients[weight] for weight in weights])


class _Call:
    """One captured function with its buffers.

    Attributes:
        inputs, outputs: name -> buffer that the graph reads or writes.
        learns: the parameters that its backward pass gives a gradient.
    """

    def __init__(self, inputs: Inputs):
        self.graph: Graph | None = None
        self.inputs = {name: None if value is None else value.clone() for name, value in inputs.items()}
        self.outputs: Tensors = {}
        self.learns: list[nn.Parameter] = []

    def drop(self) -> None:
        """Gives the graph up."""
        if self.graph is not None:
            self.graph.reset()
            self.graph = None

    def fill(self, inputs: Inputs) -> None:
        """Takes in new inputs of the same shapes."""
        for name, buffer in self.inputs.items():
            value = inputs[name]
            if buffer is not None and value is not None:
                buffer.copy_(value)


def _run(function: Function, inputs: Inputs) -> Tensors:
    """The function, as it may be captured."""
    kind = next(value.device.type for value in inputs.values() if value is not None)
    with fixed_shapes(), uncached_autocast(kind):
        return dict(function(**inputs))


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


def _shapes(inputs: Inputs) -> Hashable:
    """What a graph's buffers look like."""
    return tuple((name, None if value is None else (value.shape, value.dtype)) for name, value in inputs.items())


def _modes(model: nn.Module) -> Hashable:
    """What Python knows while a model runs: gradients, precision, training mode, adapters on or off."""
    device = next(model.parameters()).device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    layers: list[Any] = [part for part in model.modules() if hasattr(type(part), "_disable_adapters")]
    adapters = tuple((layer.disable_adapters, *layer.active_adapters, *layer.merged_adapters) for layer in layers)
    return (torch.is_grad_enabled(), precision, model.training, adapters)


def _places(model: nn.Module) -> Hashable:
    """Where every weight lies, and whether it learns."""
    return tuple((weight.data_ptr(), weight.requires_grad) for weight in model.parameters())


def _copies(values: Mapping[str, Tensor]) -> Tensors:
    """Copies, since the next replay writes to the buffers again."""
    return {name: value.detach().clone() for name, value in values.items()}


def _norm(gradients: Iterable[Tensor]) -> Tensors:
    """The norm of all gradients together."""
    norms = [gradient.float().norm() for gradient in gradients]
    return {"gradient norm": torch.stack(norms).norm()} if norms else {}
