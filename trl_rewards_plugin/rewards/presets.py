"""Named rewards as attributes, for `trl grpo --reward_funcs trl_rewards_plugin.rewards.presets.article`.

Importing this module builds none: each is built at first access, and then reads its classifiers' configs from the Hub
(`tiny` verifies the bundled assets' checksums instead). What they consist of is in files/preset_table.py.
"""

from typing import Any

from trl_rewards_plugin.rewards.files.preset_table import PRESETS
from trl_rewards_plugin.rewards.multi import MultiClassifierReward

__all__ = ["PRESETS"]


def __getattr__(name: str) -> Any:
    if name not in PRESETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    reward = MultiClassifierReward.from_preset(name)
    globals()[name] = reward
    return reward
