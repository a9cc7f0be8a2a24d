"""Clipping and the optimizer's step as work over fixed buffers: eagerly, hundreds of launches for each mini-batch.

It is torch's fused AdamW, by the function that the optimizer itself calls and on its own state. On numbers that are
not finite it changes nothing, so that the host need not read them before it.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.adamw import adamw

from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls, Tensors, Work, copies, restore
from trl_rewards_plugin.ppo.distributed import Framework

_NAME = "the optimizer's step"
_FIXED = ("weight_decay", "eps", "maximize", "amsgrad")  # settings of a group that a graph freezes, beside its betas
_STATES = ("exp_avg", "exp_avg_sq", "step")
_Groups = list[tuple[Any, list[nn.Parameter]]]  # of the optimizer, with those of their weights that have a gradient


class GraphedStep:
    """Takes the optimizer steps inside an update."""

    def __init__(self, calls: StaticCalls, framework: Framework):
        self._calls, self._framework = calls, framework
        optimizer = framework.optimizer
        inner = self._optimizer = cast(Any, getattr(optimizer, "optimizer", optimizer))  # accelerate's holds torch's
        plain = type(inner) is AdamW and all(group["fused"] and not group["amsgrad"] for group in inner.param_groups)
        changed = plain and (inner._optimizer_step_pre_hooks or inner._optimizer_step_post_hooks)
        if calls.by_graph(_NAME) and (changed or not plain):
            calls.give_up(_NAME, "The optimizer is not torch's unmodified fused AdamW (optim='adamw_torch_fused').")

    def skips_broken(self) -> bool:
        """Whether the next step changes nothing where its numbers are not finite."""
        return self._calls.by_graph(_NAME) and all(
            self._optimizer.state.get(weight) for _, weights in self._groups() for weight in weights
        )

    def _groups(self) -> _Groups:
        groups = self._optimizer.param_groups
        return [(group, [weight for weight in group["params"] if weight.grad is not None]) for group in groups]

    def __call__(self, numbers: Tensor) -> None:
        """As `Framework.step`, where all `numbers` are finite; the last is the norm of all gradients."""
        if not self.skips_broken():
            self._framework.step()  # the first makes the state
            return
        groups = self._groups()
        model, norm, state = self._framework.model, self._framework.max_grad_norm, self._optimizer.state
        known = (
            *(norm, len(numbers)),
            *((*group["betas"], *(group[name] for name in _FIXED)) for group, _ in groups),
            *(state[weight][name].data_ptr() for _, weights in groups for weight in weights for name in _STATES),
        )
        work = self._calls.kept(_NAME, known, model, lambda: _Step(groups, state, len(numbers), norm))
        work.fill(self._calls, groups, numbers)
        self._calls.run(_NAME, work)
        model.zero_grad()


class _Step(Work):
    def __init__(self, groups: _Groups, state: Any, count: int, max_norm: float | None):
        self._groups, self._max_norm = groups, max_norm
        self._weights = [weight for _, weights in groups for weight in weights]
        self._states = [[[state[weight][name] for weight in weights] for name in _STATES] for _, weights in groups]
        device = self._weights[0].device
        self._rates = torch.zeros(len(groups), device=device)
        self._numbers = torch.zeros(count, device=device)

    def fill(self, calls: StaticCalls, groups: _Groups, numbers: Tensor) -> None:
        for rate, (group, _) in zip(self._rates, groups, strict=True):
            rate.fill_(group["lr"])
        self._numbers.copy_(numbers)
        calls.attach(self._weights)

    def run(self) -> None:
        with torch.no_grad():
            if self._max_norm and self._max_norm > 0:
                torch.nn.utils.clip_grads_with_norm_(self._weights, self._max_norm, self._numbers[-1])
            broken = self._numbers.isfinite().all().logical_not().float()
            for (group, weights), states, rate in zip(self._groups, self._states, self._rates, strict=True):
                (first, second, steps), (beta1, beta2) = states, group["betas"]
                gradients = [weight.grad for weight in weights]
                settings = {name: group[name] for name in _FIXED} | {"lr": rate, "beta1": beta1, "beta2": beta2}
                step = cast(Any, adamw)
                step(weights, gradients, first, second, [], steps, fused=True, found_inf=broken, **settings)

    def eagerly(self) -> Tensors:
        before = copies(self.moving())
        try:
            self.run()
            return self._sizes()
        finally:
            restore(self.moving(), before)

    def moving(self) -> list[Tensor]:
        gradients: list[Any] = [weight.grad for weight in self._weights]
        states = [value for group in self._states for values in group for value in values]
        return [*(weight.detach() for weight in self._weights), *gradients, *states]

    def compared(self, eager: Tensors) -> tuple[Tensors, Tensors]:
        # Against their own size: moments are far smaller than any tolerance.
        found, scales = self._sizes(), {name: value.max() for name, value in eager.items()}
        ours, theirs = ({name: value / scales[name] for name, value in each.items()} for each in (eager, found))
        return ours, theirs

    def _sizes(self) -> Tensors:
        first, second = ([value for group in self._states for value in group[place]] for place in range(2))
        parts = {"a weight": self._weights, "a first moment": first, "a second moment": second}
        with torch.no_grad():
            return {name: torch.stack(torch._foreach_norm(values)) for name, values in parts.items()}
