"""Adapters: which ones PPO can train, and whether the policy without its own is the model that the run starts from."""

import re
from typing import Any, cast

import torch
from torch import nn
from transformers import set_seed

from trl_rewards_plugin.errors import InputError, did_you_mean
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
    targets = getattr(peft_config, "target_modules", None)
    listed = sorted(targets) if isinstance(targets, list | set | tuple) else []
    names = [f".{name}" for name, _ in policy.named_modules()]
    wrong = [target for target in listed if not any(name.endswith(f".{target}") for name in names)]
    if wrong:  # peft passes over one that is beside a right one
        raise _no_such_module(policy, wrong[0], ", ".join(wrong))
    set_seed(seed)
    try:
        adapted: nn.Module = get_peft_model(policy, peft_config)
    except ValueError as error:
        found = " ".join(str(error).split())
        if re.search(r"target[ _]module", found, re.IGNORECASE):
            raise _no_such_module(policy, targets, found) from error
        raise InputError("a peft_config that peft accepts", found, "correct it") from error
    return adapted


def _no_such_module(policy: Any, target: Any, found: str) -> InputError:
    """The refusal of `found`, with the names of the model's linear layers and the nearest to `target`."""
    head = policy.get_output_embeddings()
    layers = [name for name, one in policy.named_modules() if isinstance(one, nn.Linear) and one is not head]
    known = sorted({name.rpartition(".")[2] for name in layers})
    step = f"{did_you_mean(target, known)}name some of {', '.join(known)}, or leave them out for peft's default"
    return InputError("target_modules (--lora_target_modules) that are layers of the model", found, step)


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
