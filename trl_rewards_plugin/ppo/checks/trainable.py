"""What of a policy learns, and what the first update must find. Leaves out: freezing by settings, adapters, saving."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.maths.masking import Reduce, alone, masked_sum
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead
from trl_rewards_plugin.ppo.rollout import Rollout

# Mean distance of a token's log-probabilities, in nats. In lower precision sampling and scoring round differently.
_SAME = {torch.float32: 1e-3, torch.bfloat16: 0.1}
_logger = logging.getLogger(__name__)


def check_something_learns(policy: nn.Module) -> None:
    """Refuses a policy all of whose weights are frozen, as after `merge_and_unload()`, or loaded for inference."""
    if not trainable_names(policy):
        step = "call model.requires_grad_(True), also after merge_and_unload()"
        if hasattr(policy, "peft_config"):
            step = "load the adapter with PeftModel.from_pretrained(model, folder, is_trainable=True)"
        count = sum(parameter.numel() for parameter in policy.parameters())
        raise InputError("a policy with trainable weights", f"all {count:,} of its weights are frozen", step)


def trainable_names(policy: nn.Module) -> set[str]:
    """Names of the parameters that may learn."""
    return {name for name, parameter in policy.named_parameters() if parameter.requires_grad}


def check_adapter_not_frozen(policy: nn.Module, learning_before: Iterable[str]) -> None:
    """Refuses settings that froze weights of an adapter; named are the parameters that could learn before."""
    lost = sorted(set(learning_before) - trainable_names(policy))
    if lost and hasattr(policy, "peft_config"):
        expected = "an adapter in the parts that freeze_encoder and num_layers_unfrozen leave trainable"
        step = "restrict it, for example target_modules=r'.*decoder.*\\.(q|v)', or leave the setting out"
        raise InputError(expected, f"{lost[0]} and {len(lost) - 1} others in frozen parts", step)


def _learning_parts(wrapped: PolicyWithValueHead) -> dict[str, list[nn.Parameter]]:
    """What may learn in each part of policy and critic, a parameter in one part alone; an empty list: frozen."""
    core: Any = wrapped.core
    modules = {
        **wrapped.critic_parts(),
        "embeddings": core.get_input_embeddings(),
        "output matrix": core.get_output_embeddings(),
        "encoder": core.get_encoder(),
        "decoder": core.get_decoder(),
        "other parts": wrapped,
    }
    learning, seen = {}, set()
    for name, module in modules.items():
        if own := [parameter for parameter in module.parameters() if parameter not in seen]:
            learning[name] = [parameter for parameter in own if parameter.requires_grad]
            seen.update(own)
    return learning


def what_learns(wrapped: PolicyWithValueHead) -> str:
    """Which part learns with how many weights, and which is frozen, in one line."""
    counts = {name: sum(weight.numel() for weight in own) for name, own in _learning_parts(wrapped).items()}
    learning = ", ".join(f"{name} ({count:,} weights)" for name, count in counts.items() if count)
    frozen = ", ".join(name for name, count in counts.items() if not count)
    return f"learning: {learning}; frozen: {frozen or 'nothing'}"


def add_to_optimizer(optimizer: Any, wrapped: PolicyWithValueHead, critic_learning_rate: float | None) -> None:
    """Adds the critic to an optimizer that the user made before; refused where it lacks weights of the policy, too."""
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    critic = {parameter for part in wrapped.critic_parts().values() for parameter in part.parameters()}
    missing = {p: name for name, p in wrapped.named_parameters() if p.requires_grad and p not in held}
    if of_policy := [name for parameter, name in missing.items() if parameter not in critic]:
        found = f"one without {of_policy[0]} and {len(of_policy) - 1} others"
        step = "wrap the model in its adapter first and pass model.parameters(); or freeze what should not learn"
        raise InputError("an optimizer over all trainable weights of the policy", found, step)
    if missing:
        rate = {} if critic_learning_rate is None else {"lr": critic_learning_rate}
        optimizer.add_param_group({"params": list(missing), **rate})
        _logger.warning("the optimizer that was passed held no weights of the critic; they were added to it")


def check_same_start(rollout: Rollout, dtype: torch.dtype, reduce: Reduce = alone) -> None:
    """Refuses a policy unlike its reference in the first rollout, of which this is one process's part; in `dtype`."""
    mask = rollout.response_mask
    distance = masked_sum((rollout.logprobs - rollout.ref_logprobs).abs(), mask)
    # Over all processes, so that all of them refuse.
    total, tokens = reduce(torch.stack([distance, mask.sum().to(distance)])).tolist()
    gap = total / max(tokens, 1)
    if not gap <= _SAME[dtype]:
        expected = "a reference that is the policy before the first update (KL 0)"
        found = f"log-probabilities that differ by {gap:.3g} nats per token on the first rollout"
        step = "change the model before the trainer is made, not after; or pass a ref_model of your own"
        raise InputError(expected, found, step)


def check_gradients_arrive(wrapped: PolicyWithValueHead) -> bool:
    """Whether a backward pass left gradients to look at; refused where a part that should learn got none.

    A gradient of 0 is one: the first reward may say nothing. What is part of neither encoder nor decoder (a model of
    speech in the same checkpoint) need not get any.
    """
    learning = {name: own for name, own in _learning_parts(wrapped).items() if own and name != "other parts"}
    unreached = [name for name, own in learning.items() if all(weight.grad is None for weight in own)]
    if len(unreached) == len(learning):  # cleared by an early stop, or kept elsewhere (DeepSpeed)
        return False
    if unreached:
        expected = f"a gradient in every part that should learn: {', '.join(learning)}"
        step = "freeze it with requires_grad_(False), or look for detach() or no_grad() in the model's forward"
        raise InputError(expected, f"none in: {', '.join(unreached)}", step)
    return True
