"""Models into the trainer: loading by name, the adapter, the frozen reference.

Leaves out: checkpoints (checkpoint.py).
"""

import copy
import os
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.checks import check_reference, check_trained_dtype
from trl_rewards_plugin.ppo.policy import PolicyWithValueHead, bare_model, turn_off_dropout


def load_policy(model: Any, processing_class: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model and its tokenizer; names are loaded in float32, whatever the checkpoint was stored in."""
    name = str(model) if isinstance(model, str | os.PathLike) else bare_model(model).config._name_or_path
    if isinstance(model, str | os.PathLike):
        model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32)
    if processing_class is None:
        if not name:
            raise InputError("processing_class for a model that was not loaded by name", "None", "pass its tokenizer")
        processing_class = AutoTokenizer.from_pretrained(name)
    return model, processing_class


def policy_and_reference(
    policy: Any, ref_model: PreTrainedModel | None, peft_config: Any
) -> tuple[PolicyWithValueHead, nn.Module | None]:
    """The wrapped policy with dropout off, and the frozen reference (None: the policy without its new adapter)."""
    if peft_config is not None:
        from peft import get_peft_model

        policy = get_peft_model(policy, peft_config)
    check_trained_dtype(policy)
    turn_off_dropout(policy)
    if ref_model is not None:
        check_reference(ref_model, policy)
    elif peft_config is None:
        ref_model = copy.deepcopy(policy)
    if ref_model is not None:
        turn_off_dropout(ref_model)
        ref_model.eval().requires_grad_(False)
    return PolicyWithValueHead(policy), ref_model
