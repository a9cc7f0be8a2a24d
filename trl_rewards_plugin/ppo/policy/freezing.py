"""Leaves parts of an encoder-decoder untrained, found by structure and not by name of the architecture.

Leaves out: adapters, which freeze by themselves all that lies outside them.
"""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from trl_rewards_plugin.errors import InputError


def freeze(model: PreTrainedModel, *, encoder: bool, num_layers_unfrozen: int | None) -> None:
    """Freezes the encoder, or all but the decoder's last layers, or nothing; what was frozen before stays so.

    With the encoder the embeddings that the decoder shares with it freeze, too, and so does an output matrix that is
    tied to them.

    Args:
        num_layers_unfrozen: so many are left, with the norm above them and an output matrix of its own; as trlX does.

    Raises:
        InputError: the decoder has fewer layers, or nothing of the policy is left to train.
    """
    whole: Any = model
    if encoder:
        whole.get_encoder().requires_grad_(False)
    if num_layers_unfrozen is None:
        return
    decoder = whole.get_decoder()
    layers = next(part for part in decoder.modules() if isinstance(part, nn.ModuleList))  # its first list of modules
    if num_layers_unfrozen > len(layers):
        raise InputError(
            f"num_layers_unfrozen of at most {len(layers)}, the decoder layers of {type(model).__name__}",
            f"num_layers_unfrozen={num_layers_unfrozen}",
            "lower it, or set freeze_encoder to train all of the decoder",
        )
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
        raise InputError(
            "something left to train in the policy",
            f"num_layers_unfrozen={num_layers_unfrozen} with all else frozen",
            "raise num_layers_unfrozen",
        )
