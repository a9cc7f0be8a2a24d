"""Runs here draw no curves: a picture takes a quarter of a second, and two are due at every save of every run."""

import pytest

from trl_rewards_plugin.cards import callback as cards
from trl_rewards_plugin.ppo.monitoring import callbacks


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch, request):
    if not request.module.__name__.endswith("test_callbacks"):
        for module in (callbacks, cards):
            monkeypatch.setattr(module, "save_reward_curve", lambda log_history, path: None)
