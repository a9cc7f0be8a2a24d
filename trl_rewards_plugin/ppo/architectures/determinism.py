"""Makes a built model compute in training what it computes in generation, row by row.

Leaves out: what single families need for that (families.py).
"""

from torch import nn
from transformers import PreTrainedModel

from trl_rewards_plugin.ppo.acceleration import seam
from trl_rewards_plugin.ppo.architectures.families import FAMILIES, family_of

_KEPT = {name for family in FAMILIES for name in family.kept_dropouts}


def make_deterministic(model: nn.Module) -> None:
    """Turns off what is random, or depends on the rest of the batch, in `train()` mode too.

    Everything is done in the modules, and the config stays as it is, so that the saved model is what it was.
    """
    for part in list(model.modules()):
        if isinstance(part, PreTrainedModel):
            family_of(part.config).make_deterministic(part)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        # Not enough: T5's attention and all of BART read a float attribute of the module.
        for name, value in list(vars(part).items()):
            if ("dropout" in name or "layerdrop" in name) and isinstance(value, float) and name not in _KEPT:
                setattr(part, name, 0.0)
    seam.exchange_modules(model)
