"""What a checkpoint holds beside the policy and the host's state: the value head and the counters of the run.

Leaves out: saving the policy, which `save_pretrained` does.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from trl_rewards_plugin.errors import InputError

VALUE_HEAD_FILE = "value_head.safetensors"
STATE_FILE = "ppo_state.json"
HOST_STATE_FILE = "trainer_state.json"  # written last; without it the host would silently restart its counters at 0


@dataclass(frozen=True)
class RunState:
    """Counters of a run.

    Attributes:
        kl_coef: the KL coefficient, which an adaptive controller moves.
        episodes: responses trained on so far.
        epoch_scores: sum and count of the scores of the running epoch.
    """

    kl_coef: float
    episodes: int
    epoch_scores: tuple[float, int]


def save_critic(folder: Path, value_head: nn.Module, state: RunState) -> None:
    """Writes the value head and the counters into a checkpoint folder."""
    save_file(value_head.state_dict(), folder / VALUE_HEAD_FILE)
    (folder / STATE_FILE).write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")


def load_critic(folder: Path, value_head: nn.Module) -> RunState:
    """Reads what `save_critic` wrote: the value head in place, and the counters.

    Raises:
        InputError: a part of the checkpoint is missing.
    """
    parts = (VALUE_HEAD_FILE, STATE_FILE, HOST_STATE_FILE)
    missing = [name for name in parts if not (folder / name).is_file()]
    if missing:
        raise InputError(
            "a complete checkpoint of this trainer",
            f"{folder} without {', '.join(missing)}",
            "resume from an earlier checkpoint-* folder",
        )
    value_head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return RunState(state["kl_coef"], state["episodes"], tuple(state["epoch_scores"]))


def restore_policy(policy: nn.Module, folder: Path) -> None:
    """Loads what `_save` wrote. The host's own loader looks for its wrapper's parameter names and only warns."""
    if hasattr(policy, "peft_config"):
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(policy, load_file(folder / "adapter_model.safetensors"))
        return
    saved = {}
    for file in sorted(folder.glob("model*.safetensors")):
        saved.update(load_file(file))
    result = policy.load_state_dict(saved, strict=False)
    own = policy.state_dict()
    loaded = {own[name].data_ptr() for name in saved if name in own}
    missing = [name for name in result.missing_keys if own[name].data_ptr() not in loaded]  # tied ones are stored once
    if missing or result.unexpected_keys:
        raise InputError(
            f"a checkpoint of this model ({type(policy).__name__})",
            f"{folder} with missing {missing[:3]} and unexpected {result.unexpected_keys[:3]}",
            "resume with the model that the run began with",
        )
