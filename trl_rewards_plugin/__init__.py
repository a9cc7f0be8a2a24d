"""Reinforcement learning of sequence-to-sequence models from text classifier rewards, beside TRL.

The public names are imported when they are first used, so that `import trl_rewards_plugin` stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_rewards_plugin.cards.callback import ModelCardCallback
    from trl_rewards_plugin.cards.card_data import RewardModelCardData
    from trl_rewards_plugin.cards.folder_push import push_to_hub
    from trl_rewards_plugin.cards.model_card import generate_model_card
    from trl_rewards_plugin.errors import InputError
    from trl_rewards_plugin.hub.failures import UploadError
    from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
    from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
    from trl_rewards_plugin.recipes.best_of_n import BestOfN, best_of_n
    from trl_rewards_plugin.recipes.seq2seq_ppo import RunResult, Seq2SeqPPO
    from trl_rewards_plugin.rewards import (
        CallableReward,
        ClassifierReward,
        LengthReward,
        MetricReward,
        MultiClassifierReward,
        RemoteReward,
        RepetitionReward,
        RewardScores,
        RewardStateCallback,
        SimilarityReward,
    )

__all__ = [
    "BestOfN", "CallableReward", "ClassifierReward", "InputError", "LengthReward", "MetricReward", "ModelCardCallback",
    "MultiClassifierReward", "RemoteReward", "RepetitionReward", "RewardModelCardData", "RewardScores",
    "RewardStateCallback", "RunResult", "Seq2SeqPPO", "Seq2SeqPPOConfig", "Seq2SeqPPOTrainer", "SimilarityReward",
    "UploadError", "best_of_n", "generate_model_card", "push_to_hub",
]  # fmt: skip

_HOMES = {
    "cards.callback": "ModelCardCallback",
    "cards.card_data": "RewardModelCardData",
    "cards.folder_push": "push_to_hub",
    "cards.model_card": "generate_model_card",
    "errors": "InputError",
    "hub.failures": "UploadError",
    "ppo.config": "Seq2SeqPPOConfig",
    "ppo.trainer": "Seq2SeqPPOTrainer",
    "recipes.best_of_n": "BestOfN best_of_n",
    "recipes.seq2seq_ppo": "RunResult Seq2SeqPPO",
    "rewards": "CallableReward ClassifierReward LengthReward MetricReward "
    "MultiClassifierReward RemoteReward RepetitionReward RewardScores RewardStateCallback SimilarityReward",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
