import pytest
import torch
import transformers

from trl_rewards_plugin.rewards import shared_classifier


@pytest.mark.parametrize(
    ("rank", "devices", "expected"), [(None, 4, "cuda:2"), ("3", 4, "cuda:3"), ("3", 1, "cuda:2"), (None, 0, "cpu")]
)
def test_a_process_uses_its_own_device(monkeypatch, rank, devices, expected):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 2)
    assert str(shared_classifier.own_device()) == expected


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (transformers.MPNetConfig(max_position_embeddings=514), 512),
        (transformers.BertConfig(max_position_embeddings=512), 512),
        (transformers.BartConfig(max_position_embeddings=1024), 1024),
        (transformers.XLNetConfig(), None),
        (transformers.T5Config(), None),
    ],
)
def test_the_position_limit_of_a_family(config, limit):
    assert shared_classifier.position_limit(config) == limit
