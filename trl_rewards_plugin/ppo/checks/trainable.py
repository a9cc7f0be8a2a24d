"""What of a policy learns: the adapter, the parts, what the first update must find; and that this is what is saved."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, set_seed

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.input_checks import embedding_rows
from trl_rewards_plugin.ppo.maths.masking import Reduce, alone, masked_sum
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead, bare_model, teacher_forced
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.rollout import Rollout

# What these do, beyond layers of their own, lies in PeftModel.forward or in calls between the steps of an own loop.
_NEED_MORE = {
    "ADALORA": "its ranks are reallocated by calls of update_and_allocate()",
    "POLY": "its forward pass takes task_ids",
    "XLORA": "its adapters are mixed by a further forward pass",
}
# Mean distance of a token's log-probabilities, in nats. In lower precision sampling and scoring round differently.
_SAME = {torch.float32: 1e-3, torch.bfloat16: 0.1}
_logger = logging.getLogger(__name__)


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
        raise _no_such_module(policy, targets, " ".join(str(error).split())) from error
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
    """Refuses a policy that, in its first rollout, is not its reference; the models compute in `dtype`."""
    mask = rollout.response_mask
    distance = masked_sum((rollout.logprobs - rollout.ref_logprobs).abs(), mask)
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
