"""Several processes: means over them, sharded weights, and processes that were launched but do not work together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from trl_rewards_plugin.errors import InputError


def weighted_means(parts: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Weighted means by name over the (weight, values) of all processes; a name may be missing in some of them."""
    sums: dict[str, tuple[float, float]] = {}
    for weight, values in gather_object(parts):
        for name, value in values.items():
            total, weights = sums.get(name, (0.0, 0.0))
            sums[name] = (total + weight * value, weights + weight)
    return {name: sums[name][0] / sums[name][1] for name in sorted(sums)}


def check_launch(world_size: int) -> None:
    """Refuses launched processes that, as `world_size` shows, do not communicate: each would train alone."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and world_size == 1:
        expected = f"one run of the {launched} processes that were launched"
        raise InputError(expected, "processes that do not communicate", "on CPUs set use_cpu=True (--use_cpu)")


def asks_for_sharding(args: Any) -> bool:
    """Whether a setting, or accelerate's launcher by its environment, asks to shard weights or optimizer."""
    launcher = (os.environ.get(f"ACCELERATE_USE_{kind}", "") for kind in ("FSDP", "DEEPSPEED"))
    return bool(args.deepspeed or args.fsdp) or any(asked.lower() == "true" for asked in launcher)


def check_sharding(accelerator: Accelerator) -> None:
    """Refuses the first version of FSDP, whose weights cannot be gathered for sampling."""
    if accelerator.distributed_type == DistributedType.FSDP and accelerator.state.fsdp_plugin.fsdp_version != 2:
        step = "set fsdp_version: 2, as in examples/accelerate/fsdp.yaml (--fsdp_version 2)"
        raise InputError("FSDP2", "fsdp_version: 1", step)


def load_unsharded() -> None:
    """Undoes what ZeRO-3 asks of `from_pretrained`: every model stays whole, the policy until DeepSpeed shards it."""
    unset_hf_deepspeed_config()


@contextmanager
def gathered_weights(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Within it each process holds all weights of a prepared model that FSDP2 or ZeRO-3 shards, to sample alone."""
    if isinstance(model, FSDPModule):
        parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
        # FSDP2 wants the first forward pass to be the root's: an empty one, registered as FSDP2 provides for.
        root: Any = model
        root.begin_fsdp = lambda: None
        register_fsdp_forward_method(root, "begin_fsdp")
        root.begin_fsdp()
        model.set_reshard_after_forward(False)
        for part in parts:
            part.unshard()
        try:
            yield
        finally:
            model.set_reshard_after_forward(True)
            for part in parts:
                part.reshard()
    elif _engine(accelerator) and accelerator.state.deepspeed_plugin.zero_stage == 3:
        import deepspeed
        from trl.models.utils import add_hooks, remove_hooks

        load_unsharded()  # the engine set it again, and rewards load their models on first use
        with deepspeed.zero.GatheredParameters(list(model.parameters())):
            remove_hooks(model)
            try:
                yield
            finally:
                add_hooks(model)
    else:
        yield


class Framework:
    """What the update of a prepared model needs of accelerate and the Trainer's optimizer."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimizer: Any, max_grad_norm: float | None):
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.max_grad_norm = max_grad_norm  # None or 0: no clipping
        self.autocast, self.gather = accelerator.autocast, accelerator.gather
        self.world_size: int = accelerator.num_processes

    def reduce(self, sums: Tensor) -> Tensor:
        """The sum of a tensor over processes."""
        reduced: Tensor = self.accelerator.reduce(sums, reduction="sum")
        return reduced

    def backward(self, loss: Tensor) -> None:
        """Backward pass of an unscaled loss; under DeepSpeed it takes the optimizer step too."""
        if engine := _engine(self.accelerator):
            loss = loss * engine.gradient_accumulation_steps()  # by which it divides
        self.accelerator.backward(loss)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it gradients are added up on each process, without communication and without DeepSpeed's step."""
        if not _engine(self.accelerator):
            with self.accelerator.no_sync(self.model):
                yield
            return
        self.accelerator.sync_gradients = False
        try:
            yield
        finally:
            self.accelerator.sync_gradients = True

    def step(self) -> None:
        """Clips the gradients, takes an optimizer step and clears the gradients."""
        if self.max_grad_norm and self.max_grad_norm > 0:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.model.zero_grad()  # to None, so that the Trainer's own step would change nothing


def _engine(accelerator: Accelerator) -> Any:
    """DeepSpeed's engine, or None."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED or accelerator.deepspeed_engine_wrapped is None:
        return None
    return accelerator.deepspeed_engine_wrapped.engine
