"""Rewards: texts in, scores out, in TRL's reward function protocol. Knows nothing of PPO."""

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
