"""A GPU that is none: tensors that say they are on device "gpu" and are computed on the CPU.

As on a real one, tensors of two devices do not meet (but for 0-d ones of the CPU, and indices), and the host waits
where it reads a number or copies from one side to the other; each such wait is counted with the line that caused it.
For a process of its own: torch knows of the device ever after, and libraries find an accelerator.
Leaves out: autocast, inference mode (`no_grad` instead) and everything that only a real device can show: speed,
memory, numbers in its own arithmetic.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
GPU = "gpu:0"
_READS = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.multinomial.default,  # looks whether the probabilities are some
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
}


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU; `inner` is what it holds."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner, requires_grad=False):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
            requires_grad=requires_grad,
        )

    def __init__(self, inner, requires_grad=False):
        self.inner = inner

    def __repr__(self):
        return f"OnGpu({self.inner})"

    def __reduce_ex__(self, protocol):
        return self.inner.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        raise AssertionError(f"{operator} outside of pretended_gpu()")


class _Operators(TorchDispatchMode):
    """Computes every operator on the CPU, once its tensors' devices have been looked at."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(..., device=) goes past every mode
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        values, form = pytree.tree_flatten((args, kwargs))
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        onto_gpu = _is_gpu(kwargs["device"]) if kwargs.get("device") else bool(there)
        if operator is aten.copy_.default:
            onto_gpu = isinstance(args[0], OnGpu)
        elif operator is not aten._to_copy.default and there:
            _check_devices(operator, tensors)
        if _waits(operator, args, kwargs, there, onto_gpu):
            self.waits.count()
        inner = [_inner(value) for value in values]
        own_args, own_kwargs = pytree.tree_unflatten(inner, form)
        result = operator(*own_args, **own_kwargs)
        if operator is aten._local_scalar_dense.default or not (there or onto_gpu):
            return result
        if operator is aten._to_copy.default and result is own_args[0]:
            result = result.clone()
        wrapped = pytree.tree_map(lambda value: OnGpu(value) if onto_gpu and _is_tensor(value) else value, result)
        return return_and_correct_aliasing(operator, args, kwargs, wrapped)


class _Methods(TorchFunctionMode):
    """The few methods of a tensor that reach no operator."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if args and isinstance(args[0], OnGpu):
            if function in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError("can't convert a tensor on a GPU to numpy")
            if function is torch.Tensor.tolist:
                self.waits.count()
                return args[0].inner.tolist()
            if function in (torch.Tensor.untyped_storage, torch.Tensor.data_ptr):
                return function(args[0].inner)
        return function(*args, **kwargs)


class Waits(Counter):
    """How often the host waited, by the innermost place outside of torch: (file, line)."""

    def count(self):
        """One more, of the line that is running."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename == __file__ or "/torch/" in frame.f_code.co_filename:
            frame = frame.f_back
        self[frame.f_code.co_filename, frame.f_lineno] += 1

    def within(self, folder):
        """The number of waits that files under a folder caused."""
        return sum(times for (file, _), times in self.items() if file.startswith(f"{folder}{os.sep}"))


@contextmanager
def pretended_gpu() -> Iterator[Waits]:
    """Within it there is a device "gpu"; gives the waits that are counted there."""
    module = SimpleNamespace(
        __name__="gpu",
        is_available=lambda: True,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        current_device=lambda: 0,
        device_count=lambda: 1,
        manual_seed_all=lambda seed: None,
        get_amp_supported_dtype=lambda: [],
    )
    _setup_privateuseone_for_python_backend("gpu", backend_module=module)
    os.environ["ACCELERATE_TORCH_DEVICE"] = GPU
    torch.inference_mode = torch.no_grad
    torch.__future__.set_swap_module_params_on_conversion(True)  # else moved modules share their weights no longer
    torch.accelerator.empty_cache = lambda: None
    waits = Waits()
    with _Operators(waits), _Methods(waits):
        yield waits


def _is_gpu(device):
    return torch.device(device).type == "gpu"


def _is_tensor(value):
    return isinstance(value, torch.Tensor)


def _inner(value):
    if isinstance(value, torch.device):
        return torch.device("cpu") if _is_gpu(value) else value
    return value.inner if isinstance(value, OnGpu) else value


def _check_devices(operator, tensors):
    """Refuses what a GPU would refuse."""
    strays = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim() > 0]
    if strays and operator is not aten.index.Tensor:
        found = [(tuple(tensor.shape), tensor.device.type) for tensor in tensors]
        raise RuntimeError(f"{operator}: expected all tensors to be on the same device, found {found}")


def _waits(operator, args, kwargs, there, onto_gpu):
    """Whether a GPU's host would wait at this operator for all that it asked of it before."""
    if operator is aten._to_copy.default:
        return bool(there) != onto_gpu and not (onto_gpu and kwargs.get("non_blocking"))
    if operator is aten.copy_.default:
        target, source, *non_blocking = args
        crosses = isinstance(target, OnGpu) != isinstance(source, OnGpu)
        return crosses and not (onto_gpu and (any(non_blocking) or source.dim() == 0))
    if operator in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default) and there:
        indices = [index for index in args[1] if index is not None]
        return any(index.dtype == torch.bool or not isinstance(index, OnGpu) for index in indices)
    return operator in _READS and bool(there)
