"""Rewards: texts in, scores out, in TRL's reward function protocol. Knows nothing of PPO."""

from trl_rewards_plugin.rewards.classifier import ClassifierReward
from trl_rewards_plugin.rewards.multi import MultiClassifierReward
from trl_rewards_plugin.rewards.scores import RewardScores

__all__ = ["ClassifierReward", "MultiClassifierReward", "RewardScores"]
