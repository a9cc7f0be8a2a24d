"""The parts of a checkpoint that are this package's own: the critic, the run's counters, the rewards' states.

A checkpoint holds the policy or its adapter, the tokenizer, the critic (`value_head.safetensors`), the Trainer's
optimizer, scheduler, random states and `trainer_state.json`, and `ppo_state.json`: `RunState`, with the checksum of
every other file (runs/checkpoints.py).
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.input_checks import reward_name
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead
from trl_rewards_plugin.runs.layout import RUN_STATE, VALUE_HEAD
from trl_rewards_plugin.runs.read import RUN_STATE_SHAPE, checked, read_json

POLICY_PREFIX = "policy."


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run is resumed from, beside its weights. Earlier versions lack what may be None."""

    # Of the run: the same on every process.
    kl_coef: float  # which an adaptive controller moves
    episodes: int  # responses trained on so far
    epoch_scores: tuple[float, int]  # sum and count of the scores of the running epoch
    seconds: float  # of training so far
    alarms: dict[str, int]  # how many rollouts raised each alarm so far, by its name
    total_loss: float | None = None  # the sum over rollouts of their mean loss
    # Of each process, in the order of their indices.
    metrics: list[dict[str, list[float]]]  # the values since the last log, by name
    rewards: list[dict[str, Any]]  # the state of every reward that has one, by name
    evaluation_rewards: list[dict[str, Any]] | None = None  # states in which they are evaluated: `frozen_rewards`


def load_run_state(folder: Path) -> RunState:
    """Reads the state of a checkpoint's run; refused where it is missing or damaged."""
    saved = checked(read_json(folder / RUN_STATE), RUN_STATE_SHAPE, folder / RUN_STATE)
    state = {field.name: saved[field.name] for field in fields(RunState) if field.name in saved}
    return RunState(**{**state, "epoch_scores": tuple(saved["epoch_scores"])})


def check_fingerprint(folder: Path, found: list[float]) -> None:
    """Refuses a resume whose policy is not the one that was saved, though all of its saved weights were loaded.

    The weights below an adapter are not saved: another base model, or another random decomposition of it, shows here.
    """
    saved = read_json(folder / RUN_STATE).get("fingerprint", found)  # earlier versions wrote none
    # Relative to the size of logits in lower precision, and on another device than the one that saved it.
    gap = max(abs(before - now) / max(1, abs(before)) for before, now in zip(saved, found, strict=True))
    if not gap <= 0.05:
        step = "resume with the model, peft_config, seed, temperature and suppress_tokens that the run began with"
        found_is = f"one whose logits on a prompt differ by up to {gap:.0%}"
        raise InputError(f"the policy that {folder} was saved from", found_is, step)


def policy_state(wrapped: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The policy's own part of a gathered state of policy and critic, under its own names, tied tensors once."""
    ties = dict(wrapped.named_parameters(remove_duplicate=False)).keys() - dict(wrapped.named_parameters()).keys()
    names = [name for name in state if name.startswith(POLICY_PREFIX) and name not in ties]
    return {name.removeprefix(POLICY_PREFIX): state[name] for name in names}


def save_critic(folder: Path, state: dict[str, Tensor]) -> None:
    """Writes the critic's part of the state of policy and critic: the head, and a separate value model."""
    critic = {name: value for name, value in state.items() if not name.startswith(POLICY_PREFIX)}
    # Clones, because the file format refuses tied tensors.
    save_file({name: value.detach().clone().contiguous() for name, value in critic.items()}, folder / VALUE_HEAD)


def restore_weights(wrapped: PolicyWithValueHead, folder: Path) -> None:
    """Loads critic and policy in place. The Trainer's own loader looks for its wrapper's names and only warns."""
    _load(wrapped, load_file(folder / VALUE_HEAD), folder, ignore=POLICY_PREFIX)
    if hasattr(wrapped.policy, "peft_config"):
        _restore_adapter(wrapped.policy, folder)
        return
    files = sorted(folder.glob("model*.safetensors"))
    _load(wrapped.policy, {name: value for file in files for name, value in load_file(file).items()}, folder)


# Of an adapter's config, between the run that saved it and the one that resumes it.
_MAY_DIFFER = {"auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision"}


def _restore_adapter(policy: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    saved = load_file(folder / "adapter_model.safetensors")
    own = get_peft_model_state_dict(policy)
    differing = sorted(saved.keys() ^ own.keys()) or [name for name in saved if saved[name].shape != own[name].shape]
    theirs = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    ours = json.loads(json.dumps(policy.active_peft_config.to_dict(), default=sorted))
    settings = (theirs.keys() & ours.keys()) - _MAY_DIFFER
    differing += sorted(name for name in settings if _unordered(theirs[name]) != _unordered(ours[name]))
    if differing:
        found = f"{folder}, which differs in {', '.join(differing[:3])}"
        raise InputError("a checkpoint of this adapter", found, "resume with the peft_config that the run began with")
    set_peft_model_state_dict(policy, saved)


def _unordered(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value  # a set became a list in any order


def _load(module: nn.Module, saved: dict[str, Tensor], folder: Path, ignore: str = " ") -> None:
    """Loads all of a module's tensors in place, except those whose name begins with `ignore`; all must be there."""
    own = module.state_dict()
    fitting = {name: value for name, value in saved.items() if name in own and own[name].shape == value.shape}
    unexpected = sorted(saved.keys() - fitting.keys())
    loaded = {own[name].data_ptr() for name in fitting}  # tied ones are stored once
    absent = module.load_state_dict(fitting, strict=False).missing_keys
    missing = [name for name in absent if own[name].data_ptr() not in loaded and not name.startswith(ignore)]
    if missing or unexpected:
        there, here = ({name: list(value.shape) for name, value in each.items()} for each in (saved, own))
        names = sorted({*missing, *unexpected})[:3]
        differing = [f"{name} {there.get(name, 'missing')}, here {here.get(name, 'missing')}" for name in names]
        found = f"{folder} with {'; '.join(differing)}"
        step = "resume with the model that the run began with"
        raise InputError(f"a checkpoint of this model ({type(module).__name__})", found, step)


def reward_states(rewards: Sequence[Callable[..., Any]]) -> dict[str, Any]:
    """The states, of plain JSON values, of rewards that have `state_dict` and `load_state_dict`, by name."""
    states = {}
    for reward in _with_state(rewards):
        name, state = reward_name(reward), reward.state_dict()
        try:
            states[name] = json.loads(json.dumps(state))
        except TypeError as error:
            expected = "plain JSON values (numbers, texts, lists, mappings) from a reward's state_dict()"
            raise InputError(expected, f"reward {name!r}: {error}", "convert tensors with .tolist()") from error
    return states


def restore_rewards(rewards: Sequence[Callable[..., Any]], states: dict[str, Any]) -> None:
    """Loads the states that `reward_states` returned; refused where other rewards have a state."""
    stateful = {reward_name(reward): reward for reward in _with_state(rewards)}
    if stateful.keys() != states.keys():
        expected = f"the rewards whose state the checkpoint holds: {sorted(states) or 'none'}"
        found = f"rewards with a state: {sorted(stateful) or 'none'}"
        raise InputError(expected, found, "resume with the reward_funcs that the run began with")
    for name, reward in stateful.items():
        reward.load_state_dict(states[name])


def _with_state(rewards: Sequence[Callable[..., Any]]) -> list[Any]:
    methods = ("state_dict", "load_state_dict")
    return [reward for reward in rewards if all(callable(getattr(reward, name, None)) for name in methods)]


@contextmanager
def frozen_rewards(rewards: Sequence[Callable[..., Any]], kept: dict[str, Any]) -> Iterator[None]:
    """Within it rewards score with the state of the first evaluation; on exit they get that of training back.

    A reward with a method `frozen()`, a context manager, keeps its scale itself within that. Any other with a state
    begins each evaluation with that of the first one, in `kept` by the reward's name, filled in here.
    """
    with ExitStack() as stack:
        for reward in rewards:
            if callable(frozen := getattr(reward, "frozen", None)):
                stack.enter_context(frozen())
                continue
            for name, state in reward_states([reward]).items():
                stack.callback(restore_rewards, [reward], {name: state})
                restore_rewards([reward], {name: copy.deepcopy(kept.setdefault(name, state))})
        yield


def mark_untied_embeddings(model: PreTrainedModel, folder: Path) -> None:
    """Lets transformers 4 read an untied T5 (FLAN-T5) that transformers 5 saved into `folder`.

    Version 5 writes `tie_word_embeddings: true` for every T5 and looks at the tensors when it loads; version 4 would
    trust the flag and silently compute something else. Version 5 loads either.
    """
    config = folder / "config.json"
    if getattr(model.config, "scale_decoder_outputs", True) or not config.is_file():  # no untied T5, or an adapter
        return
    if cast(Any, model.get_output_embeddings()).weight is not cast(Any, model.get_input_embeddings()).weight:
        values = json.loads(config.read_text(encoding="utf-8")) | {"tie_word_embeddings": False}
        write_text(config, json.dumps(values, indent=2, sort_keys=True) + "\n")
