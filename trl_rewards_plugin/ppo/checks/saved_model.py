"""What is trained is what is saved: weights that a model does not save do not learn, and a save is read again."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.input_checks import embedding_rows
from trl_rewards_plugin.ppo.policy.policy import bare_model, teacher_forced
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules

_logger = logging.getLogger(__name__)


@torch.no_grad()
def fingerprint(model: nn.Module, rules: TokenRules) -> Tensor:
    """Log-weights (T, V) of a model after a prompt of a few tokens, in evaluation mode: what tells models apart."""
    core = bare_model(model)
    with in_evaluation(core):
        return tried_weights(core, rules)[0].cpu()


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode; afterwards in the mode that it was in before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def tried_weights(core: PreTrainedModel, rules: TokenRules) -> Tensor:
    """Log-weights (1, T, V) after a prompt of several tokens, since attention to a single one is constant."""
    last = min(embedding_rows(core)) - 1
    ids = torch.linspace(0, last, 8, device=core.device).long().unsqueeze(0)
    prompt = EncodedPrompts(ids, torch.ones_like(ids, dtype=torch.bool))
    return teacher_forced(core, prompt, ids.flip(1), rules)[0]


def freeze_what_is_not_saved(model: PreTrainedModel) -> None:
    """Freezes the parameters that `_keys_to_ignore_on_save` names and that are saved under no other name.

    Marian's sinusoidal positions, for one: computed anew by every load, so what they learned would be lost.
    """
    patterns = [str(pattern) for pattern in getattr(model, "_keys_to_ignore_on_save", None) or ()]
    named = list(model.named_parameters(remove_duplicate=False))
    saved = {parameter for name, parameter in named if not any(re.search(pattern, name) for pattern in patterns)}
    for _, parameter in named:
        if parameter not in saved:
            parameter.requires_grad_(False)


def check_saved(folder: Path, policy: nn.Module, rules: TokenRules) -> None:
    """Loads what was saved, an adapter onto its base model; refused where it scores otherwise than the policy."""
    core, adapted = bare_model(policy), hasattr(policy, "peft_config")
    kind: Any = type(core)
    loaded = _with_saved_adapter(folder, core) if adapted else kind.from_pretrained(folder, dtype=core.dtype)
    if loaded is None:
        return
    make_deterministic(loaded)  # as the trained one is: what experts drop is no matter of the weights
    gap = (fingerprint(policy, rules) - fingerprint(loaded.to(core.device), rules)).nan_to_num().abs().max().item()
    if gap > (1e-3 if core.dtype == torch.float32 else 0.1):
        whole = "save the whole model: trainer.policy_model.merge_and_unload().save_pretrained(folder)"
        step = "report it with the model's name; trainer.policy_model.state_dict() holds the trained weights"
        found = f"one whose logits on a prompt differ from it by up to {gap:.3g}"
        raise InputError(f"the trained model in {folder}", found, whole if adapted else step)


def _with_saved_adapter(folder: Path, core: PreTrainedModel) -> nn.Module | None:
    from peft import PeftModel

    name = core.config._name_or_path
    if not name:
        return None
    try:
        base = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=core.dtype)
    except OSError as error:
        _logger.warning("the saved adapter is not compared with the trained one: %s cannot be loaded: %s", name, error)
        return None
    adapted: nn.Module = PeftModel.from_pretrained(base, folder)
    return adapted
