"""Named rewards as attributes, for `trl grpo --reward_funcs trl_rewards_plugin.rewards.presets.article`.

`presets.file` is the reward file that the environment variable TRL_REWARDS_FILE names. Each is built at first access,
and then reads its classifiers' configs, from the Hub unless they are bundled. What the presets consist of is in
../preset_table.py.
"""

import os
from typing import Any

from trl_rewards_plugin.errors import InputError, did_you_mean
from trl_rewards_plugin.preset_table import PRESETS
from trl_rewards_plugin.rewards.multi import MultiClassifierReward

__all__ = ["PRESETS"]

FILE_VARIABLE = "TRL_REWARDS_FILE"


def __getattr__(name: str) -> Any:
    if name not in (*PRESETS, "file"):
        step = f"{did_you_mean(name, (*PRESETS, 'file'))}use one of {', '.join((*PRESETS, 'file'))}"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {step}")
    if name == "file" and FILE_VARIABLE not in os.environ:
        step = f"for example {FILE_VARIABLE}=reward.yaml trl grpo --reward_funcs {__name__}.file ..."
        raise InputError(f"a reward file in the environment variable {FILE_VARIABLE}", "none", step)
    reward = MultiClassifierReward.from_preset(os.environ[FILE_VARIABLE] if name == "file" else name)
    globals()[name] = reward
    return reward
