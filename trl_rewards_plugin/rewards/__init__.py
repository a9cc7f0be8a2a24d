"""Rewards: texts in, scores out, in TRL's reward function protocol. Knows nothing of PPO.

The names are imported when they are first used: reward files are checked without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_rewards_plugin.rewards.base import Reward, RewardScores, TextReward
    from trl_rewards_plugin.rewards.classifier import ClassifierReward
    from trl_rewards_plugin.rewards.functions import CallableReward
    from trl_rewards_plugin.rewards.metric_reward import MetricReward
    from trl_rewards_plugin.rewards.multi import MultiClassifierReward
    from trl_rewards_plugin.rewards.remote_reward import RemoteReward
    from trl_rewards_plugin.rewards.state_callback import RewardStateCallback
    from trl_rewards_plugin.rewards.text_rewards import LengthReward, RepetitionReward, SimilarityReward

__all__ = [
    "CallableReward", "ClassifierReward", "LengthReward", "MetricReward", "MultiClassifierReward", "RemoteReward",
    "RepetitionReward", "Reward", "RewardScores", "RewardStateCallback", "SimilarityReward", "TextReward",
]  # fmt: skip

_HOMES = {
    "base": "Reward RewardScores TextReward",
    "classifier": "ClassifierReward",
    "functions": "CallableReward",
    "metric_reward": "MetricReward",
    "multi": "MultiClassifierReward",
    "remote_reward": "RemoteReward",
    "state_callback": "RewardStateCallback",
    "text_rewards": "LengthReward RepetitionReward SimilarityReward",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    home = next((home for home, names in _HOMES.items() if name in names.split()), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value
