"""Models into the trainer: loading by name, the adapter, frozen parts, the value head, the frozen reference."""

import copy
import os
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.places import check_tokenizer_files
from trl_rewards_plugin.ppo import input_checks
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.checks import peft_adapters, saved_model, trainable
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.input_checks import agree_on_tokens, embedding_rows
from trl_rewards_plugin.ppo.policy.output_head import head_is_whole
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead, bare_model
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules


def load_policy(model: Any, processing_class: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model and its tokenizer, which agree on special tokens; names, adapters' too, are loaded in float32."""
    name = str(model) if isinstance(model, str | os.PathLike) else bare_model(model).config._name_or_path
    if isinstance(model, str | os.PathLike):
        base = input_checks.adapter_base(name)
        model = AutoModelForSeq2SeqLM.from_pretrained(base or name, dtype=torch.float32)
        if base is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, name, is_trainable=True)
            name = name if os.path.isfile(os.path.join(name, "tokenizer_config.json")) else base
    if processing_class is None:
        if not name:
            raise InputError("processing_class for a model that was not loaded by name", "None", "pass its tokenizer")
        check_tokenizer_files(name)
        processing_class = AutoTokenizer.from_pretrained(name)
    agree_on_tokens(model, processing_class)
    return model, processing_class


def add_value_head(policy: Any, value_model: Any, args: Seq2SeqPPOConfig, rules: TokenRules) -> PolicyWithValueHead:
    """The policy, frozen as the settings say, and its critic as one module; names are loaded in float32."""
    core = bare_model(policy)
    saved_model.freeze_what_is_not_saved(core)
    trainable.check_something_learns(policy)
    learning = trainable.trainable_names(policy)
    freeze(core, encoder=args.frozen_encoder, num_layers_unfrozen=args.num_layers_unfrozen)
    trainable.check_adapter_not_frozen(policy, learning)
    trainable.check_something_learns(policy)
    if value_model is not None:
        if isinstance(value_model, str | os.PathLike):
            value_model = AutoModelForSeq2SeqLM.from_pretrained(str(value_model), dtype=torch.float32)
        if value_model is core:
            step = "leave it out: the head shares its decoder"
            raise InputError("a value_model of its own", "the policy itself", step)
        input_checks.check_no_shared_weights(value_model, "value_model", policy)
        input_checks.check_trained_dtype(value_model)
        tokens, needed = (len(bare_model(model).get_input_embeddings().weight) for model in (value_model, policy))
        if tokens < needed:
            expected, found = f"a value_model that reads the policy's {needed} tokens", f"one of {tokens} tokens"
            raise InputError(expected, found, "start it from the same model")
        make_deterministic(value_model)
    detached, sliced = args.detach_value_head, head_is_whole(core, rules)
    return PolicyWithValueHead(
        policy, has_critic=args.has_critic, detach_value_head=detached, value_model=value_model, sliced=sliced
    )


def policy_and_reference(
    policy: Any, ref_model: PreTrainedModel | None, peft_config: Any, seed: int, rules: TokenRules
) -> tuple[Any, nn.Module | None]:
    """The policy with dropout off, and the frozen reference: the given one, else the model that the run starts from.

    That is a copy; or None, where the policy without its new adapter is and stays the same. The adapter's random
    initial weights are those of `seed`.
    """
    for adapter in [*getattr(policy, "peft_config", {}).values(), *([] if peft_config is None else [peft_config])]:
        peft_adapters.check_adapter(adapter)
    if peft_config is not None:
        policy = peft_adapters.with_adapter(policy, peft_config, seed)
    input_checks.check_trained_dtype(policy)
    make_deterministic(policy)
    if ref_model is not None:
        input_checks.check_reference(ref_model, policy)
        found, needed = (embedding_rows(bare_model(model)) for model in (ref_model, policy))
        if found != needed:  # its probabilities would be of other tokens, or shared among more
            expected = f"a ref_model with embeddings for the policy's {needed[1]} tokens"
            step = "call resize_token_embeddings(len(tokenizer)) on both, or start both from the same model"
            raise InputError(expected, f"one for {found[1]} tokens", step)
    elif peft_config is None or not peft_adapters.starts_without_adapter(policy, rules):
        ref_model = copy.deepcopy(policy)
    if ref_model is not None:
        make_deterministic(ref_model)
        ref_model.eval().requires_grad_(False)
    return policy, ref_model


def freeze(model: PreTrainedModel, *, encoder: bool, num_layers_unfrozen: int | None) -> None:
    """Freezes the encoder, or all but the decoder's last layers, or nothing; what was frozen before stays so.

    With the encoder the embeddings that the decoder shares with it freeze, too, and so does an output matrix that is
    tied to them. With the last `num_layers_unfrozen` layers the norm above them stays trainable, and an output matrix
    of its own; as trlX does. InputError where the decoder has fewer layers, or nothing is left to train.
    """
    whole: Any = model
    if encoder:
        whole.get_encoder().requires_grad_(False)
    if num_layers_unfrozen is None:
        return
    decoder = whole.get_decoder()
    layers = next(part for part in decoder.modules() if isinstance(part, nn.ModuleList))  # its first list of modules
    if num_layers_unfrozen > len(layers):
        expected = f"num_layers_unfrozen of at most {len(layers)}, the decoder layers of {type(model).__name__}"
        step = "lower it, or set freeze_encoder to train all of the decoder"
        raise InputError(expected, f"num_layers_unfrozen={num_layers_unfrozen}", step)
    in_layers = {id(parameter) for parameter in layers.parameters()}
    top = {id(p) for layer in list(layers)[len(layers) - num_layers_unfrozen :] for p in layer.parameters()}
    # Position embeddings and the norm of the embeddings lie below the layers; whatever else is no layer, above.
    top |= {id(p) for name, p in decoder.named_parameters() if id(p) not in in_layers and "embed" not in name}
    top |= {id(p) for p in whole.get_output_embeddings().parameters()}
    below = {id(p) for part in (whole.get_input_embeddings(), whole.get_encoder()) for p in part.parameters()}
    for parameter in model.parameters():
        if id(parameter) in below or id(parameter) not in top:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        found = f"num_layers_unfrozen={num_layers_unfrozen} with all else frozen"
        raise InputError("something left to train in the policy", found, "raise num_layers_unfrozen")
