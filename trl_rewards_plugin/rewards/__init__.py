"""Rewards: texts in, scores out, in TRL's reward function protocol. Knows nothing of PPO.

The names are imported when they are first used, so that a reward file's name is checked without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_rewards_plugin.rewards.base import Reward, RewardScores, TextReward
    from trl_rewards_plugin.rewards.classifier import ClassifierReward
    from trl_rewards_plugin.rewards.metric_reward import MetricReward
    from trl_rewards_plugin.rewards.multi import MultiClassifierReward
    from trl_rewards_plugin.rewards.remote_reward import RemoteReward
    from trl_rewards_plugin.rewards.state_callback import RewardStateCallback
    from trl_rewards_plugin.rewards.text_rewards import LengthReward, RepetitionReward, SimilarityReward

__all__ = [
    "ClassifierReward",
    "LengthReward",
    "MetricReward",
    "MultiClassifierReward",
    "RemoteReward",
    "RepetitionReward",
    "Reward",
    "RewardScores",
    "RewardStateCallback",
    "SimilarityReward",
    "TextReward",
]

_HOMES = {
    "ClassifierReward": "classifier",
    "MetricReward": "metric_reward",
    "MultiClassifierReward": "multi",
    "RemoteReward": "remote_reward",
    "RewardStateCallback": "state_callback",
    **dict.fromkeys(("Reward", "RewardScores", "TextReward"), "base"),
    **dict.fromkeys(("LengthReward", "RepetitionReward", "SimilarityReward"), "text_rewards"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
