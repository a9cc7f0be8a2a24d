import pytest
import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.inference import devices


@pytest.mark.parametrize(
    ("rank", "count", "expected"), [(None, 4, "cuda:2"), ("3", 4, "cuda:3"), ("3", 1, "cuda:2"), (None, 0, "cpu")]
)
def test_a_process_uses_its_own_device(monkeypatch, rank, count, expected):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 2)
    assert str(devices.own_device()) == expected


@pytest.mark.parametrize("device", ["gpu", "cuda:x", 1.5, ""])
def test_invalid_devices_are_refused(device):
    with pytest.raises(InputError, match="'cuda:1'"):
        devices.as_device(device)


def test_missing_devices_are_refused(monkeypatch):
    devices.check_present(torch.device("cpu"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match="only the CPU"):
        devices.check_present(torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    devices.check_present(torch.device("cuda:1"))
    for absent in ("cuda:2", "xpu"):
        with pytest.raises(InputError, match="2 of type cuda"):
            devices.check_present(torch.device(absent))


def test_half_dtypes_run_under_autocast_and_others_outside_a_trainers_own():
    numbers = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (None, torch.float32):
            with devices.precision(torch.device("cpu"), dtype):
                assert (numbers @ numbers).dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        with devices.precision(torch.device("cpu"), dtype):
            assert (numbers @ numbers).dtype == dtype
