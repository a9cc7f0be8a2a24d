"""Parameter groups of the optimizer. Leaves out: which optimizer, which is the host's choice."""

import torch
from torch import nn


def split_group(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], learning_rate: float) -> None:
    """Moves some parameters into groups of their own learning rate; every other setting of a group is kept."""
    chosen = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if own:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
            optimizer.add_param_group({**group, "params": own, "lr": learning_rate})
