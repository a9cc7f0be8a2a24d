"""What a plan and a card say of the precision that a run computes in."""

from types import SimpleNamespace

import pytest
import torch

from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.runs.record import precision

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bf16": False, "device": CPU, "tf32": None}, "float32"),
        ({"bf16": False, "device": CUDA, "tf32": False}, "float32"),
        ({"bf16": False, "device": CUDA, "tf32": None}, "float32"),  # it is off unless asked for
        ({"bf16": False, "device": CUDA, "tf32": True}, "float32, TF32 in products of float32"),
        (
            {"bf16": True, "device": CUDA, "tf32": False, "bf16_by_itself": True},
            "bfloat16 autocast, on by itself since the GPU has it (bf16=False turns it off)",
        ),
        ({"bf16": True, "device": CUDA, "tf32": False, "bf16_by_itself": False}, "bfloat16 autocast"),
    ],
)
def test_precision_names_the_choice_and_how_to_make_another(settings, said):
    assert precision(SimpleNamespace(**settings)) == said


def test_the_gap_between_sampling_and_scoring_is_the_mean_of_the_log():
    history = [{"val/sampling_gap": 0.001}, {"eval_reward": 1.0}, {"val/sampling_gap": 0.003}]
    args = SimpleNamespace(bf16=True, device=CPU, tf32=None)
    assert precision(args, history) == "bfloat16 autocast; sampling gap 0.002 nats a token"


@pytest.mark.parametrize("has_it", [True, False])
def test_bf16_that_is_switched_on_by_itself_is_told_from_one_that_was_asked_for(tmp_path, monkeypatch, has_it):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it)
    monkeypatch.setattr(Seq2SeqPPOConfig.__mro__[1], "__post_init__", lambda self: None)
    monkeypatch.setattr("trl_rewards_plugin.ppo.config.check_prepared", lambda config: None)
    monkeypatch.setattr("trl_rewards_plugin.ppo.config.check_together", lambda *_: None)
    left_out = Seq2SeqPPOConfig(output_dir=str(tmp_path))
    assert (left_out.bf16, left_out.bf16_by_itself) == (has_it, has_it)
    assert not Seq2SeqPPOConfig(output_dir=str(tmp_path), bf16=True).bf16_by_itself
