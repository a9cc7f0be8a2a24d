"""Which parts of policy and critic learn: found before the first step, and held against the gradients of it.

Leaves out: freezing parts (policy/load_policy.py).
"""

import logging
from collections.abc import Iterable
from typing import Any

from torch import nn

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead

_logger = logging.getLogger(__name__)


def check_something_learns(policy: nn.Module) -> None:
    """Refuses a policy all of whose weights are frozen.

    Raises:
        InputError: none requires a gradient, as after `merge_and_unload()`, or in an adapter loaded for inference.
    """
    if any(parameter.requires_grad for parameter in policy.parameters()):
        return
    step = "call model.requires_grad_(True), also after merge_and_unload()"
    if hasattr(policy, "peft_config"):
        step = "load the adapter by PeftModel.from_pretrained(model, folder, is_trainable=True)"
    count = sum(parameter.numel() for parameter in policy.parameters())
    raise InputError("a policy with weights that may learn", f"all {count:,} of its weights are frozen", step)


def parts(wrapped: PolicyWithValueHead) -> dict[str, list[nn.Parameter]]:
    """The parameters of policy and critic by the part that they are in, each in one part alone."""
    core: Any = wrapped.core
    modules = {
        **wrapped.critic_parts(),
        "embeddings": core.get_input_embeddings(),
        "output matrix": core.get_output_embeddings(),
        "encoder": core.get_encoder(),
        "decoder": core.get_decoder(),
        "other parts": wrapped,
    }
    found: dict[str, list[nn.Parameter]] = {}
    seen: set[int] = set()
    for name, module in modules.items():
        own = [parameter for parameter in module.parameters() if id(parameter) not in seen]
        seen |= {id(parameter) for parameter in own}
        if own:
            found[name] = own
    return found


def log_what_learns(wrapped: PolicyWithValueHead) -> str:
    """Logs which part learns with how many weights, and which is frozen; returns the line."""
    counts = {
        name: sum(parameter.numel() for parameter in own if parameter.requires_grad)
        for name, own in parts(wrapped).items()
    }
    learning = ", ".join(f"{name} ({count:,} weights)" for name, count in counts.items() if count)
    frozen = ", ".join(name for name, count in counts.items() if not count)
    line = f"learning: {learning}; frozen: {frozen or 'nothing'}"
    _logger.info(line)
    return line


def add_to_optimizer(optimizer: Any, wrapped: PolicyWithValueHead, critic_learning_rate: float | None) -> None:
    """Adds the critic, which the trainer made, to an optimizer that the user made before.

    Args:
        critic_learning_rate: None for the optimizer's own.

    Raises:
        InputError: it lacks weights of the policy, too, such as those of an adapter.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    critic = _not_in(held, (p for part in wrapped.critic_parts().values() for p in part.parameters()))
    missing = _not_in(held | {id(parameter) for parameter in critic}, wrapped.parameters())
    if missing:
        names = {id(parameter): name for name, parameter in wrapped.named_parameters()}
        raise InputError(
            "an optimizer of all weights of the policy that may learn",
            f"one without {names[id(missing[0])]} and {len(missing) - 1} others",
            "wrap the model in its adapter first and pass model.parameters(); or freeze what should not learn",
        )
    if critic:
        rate = {} if critic_learning_rate is None else {"lr": critic_learning_rate}
        optimizer.add_param_group({"params": critic, **rate})
        _logger.warning("the optimizer that was passed held no weights of the critic; they were added to it")


def _not_in(held: set[int], parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad and id(parameter) not in held]


def check_gradients_arrive(wrapped: PolicyWithValueHead) -> bool:
    """Whether a backward pass left gradients that could be looked at; called between it and the optimizer's step.

    A gradient of 0 is one: the first reward may say nothing. What is part of neither encoder nor decoder (a model of
    speech in the same checkpoint) need not get any.

    Raises:
        InputError: a part that should learn is not connected to the loss.
    """
    learning = {name: [p for p in own if p.requires_grad] for name, own in parts(wrapped).items()}
    learning = {name: own for name, own in learning.items() if own and name != "other parts"}
    reached = {name: any(parameter.grad is not None for parameter in own) for name, own in learning.items()}
    if not any(reached.values()):  # cleared by an early stop, or kept elsewhere (DeepSpeed)
        return False
    unreached = [name for name, reaches in reached.items() if not reaches]
    if unreached:
        raise InputError(
            f"a gradient in every part that should learn: {', '.join(reached)}",
            f"none in: {', '.join(unreached)}",
            "freeze it by requires_grad_(False), or look for detach() or no_grad() in the model's forward",
        )
    return True


def check_adapter_not_frozen(policy: nn.Module, learning_before: Iterable[str]) -> None:
    """Refuses settings that froze weights of an adapter, which learns nothing there.

    Args:
        learning_before: names of the parameters that could learn before the settings were applied.
    """
    lost = sorted(set(learning_before) - trainable_names(policy))
    if lost and hasattr(policy, "peft_config"):
        raise InputError(
            "an adapter in the parts that freeze_encoder and num_layers_unfrozen leave to learn",
            f"{lost[0]} and {len(lost) - 1} others in frozen parts",
            "restrict it, for example target_modules=r'.*decoder.*\\.(q|v)', or leave the setting out",
        )


def trainable_names(policy: nn.Module) -> set[str]:
    """Names of the parameters that may learn."""
    return {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
