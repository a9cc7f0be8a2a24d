"""Adapters: which ones PPO can train, and whether the policy without its own is the model that the run starts from."""

from typing import Any, cast

import torch
from torch import nn
from transformers import set_seed

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.checks.saved_model import in_evaluation, tried_weights
from trl_rewards_plugin.ppo.policy.policy import bare_model
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules

# What these do, beyond layers of their own, lies in PeftModel.forward or in calls between the steps of an own loop.
_NEED_MORE = {
    "ADALORA": "its ranks are reallocated by calls of update_and_allocate()",
    "POLY": "its forward pass takes task_ids",
    "XLORA": "its adapters are mixed by a further forward pass",
}


def with_adapter(policy: Any, peft_config: Any, seed: int) -> nn.Module:
    """The policy in a new adapter, whose random weights depend on the seed alone; refused where it has one already."""
    from peft import PeftModel, get_peft_model

    if isinstance(policy, PeftModel):
        expected = "a model without an adapter, where peft_config gives it one"
        step = "leave peft_config out to train the adapter that is there, or pass model.merge_and_unload() after "
        raise InputError(expected, f"a {type(policy).__name__} and a peft_config", step + "requires_grad_(True)")
    set_seed(seed)
    adapted: nn.Module = get_peft_model(policy, peft_config)
    return adapted


def check_adapter(peft_config: Any) -> None:
    """Refuses by name the kinds of adapter that PPO cannot train."""
    kind = str(getattr(peft_config.peft_type, "value", peft_config.peft_type))
    reason = _NEED_MORE.get(kind)
    if peft_config.is_prompt_learning:
        reason = "its virtual tokens lie outside of the encoder-decoder that samples and scores"
    if reason is not None:
        expected = "an adapter inside the model's own layers, such as LoRA or IA3"
        step = "pass peft.LoraConfig(task_type='SEQ_2_SEQ_LM', ...)"
        raise InputError(expected, f"{type(peft_config).__name__} ({kind}): {reason}", step)


def starts_without_adapter(policy: nn.Module, rules: TokenRules) -> bool:
    """Whether the policy with its adapter switched off is, and stays, the model that the run starts from.

    It is not where the adapter changes the model before it has learned anything (random initial weights), where it
    changed the weights below it (PiSSA, OLoRA), or where weights below it are trained along (`bias="all"`). Tried on a
    prompt of a few tokens.
    """
    if any(getattr(config, "bias", "none") != "none" for config in cast(Any, policy).peft_config.values()):
        return False  # and peft warns of every switching off
    core = bare_model(policy)
    with in_evaluation(core):
        with torch.enable_grad(), cast(Any, policy).disable_adapter():
            off = tried_weights(core, rules)
        on = tried_weights(core, rules)
    return not off.requires_grad and torch.allclose(on, off, atol=1e-5, rtol=1e-5)
