"""T5's norm in one kernel, or few passes: the numbers of transformers' own."""

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5LayerNorm

from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.acceleration.fused_norm import FusedNorm, rms_norm
from trl_rewards_plugin.ppo.acceleration.seam import exchange_modules
from trl_rewards_plugin.ppo.policy.load_policy import load_policy


def on_a_gpu(norm, values):
    return rms_norm(values, norm.weight, norm.variance_epsilon)


def on_a_cpu(norm, values):
    return FusedNorm(norm, rounds=True)(values)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("fused", [on_a_gpu, on_a_cpu])
def test_it_is_transformers_norm_with_its_gradients(fused, dtype, tolerance):
    norm = T5LayerNorm(16, eps=1e-6).to(dtype)
    torch.nn.init.normal_(norm.weight)
    values = torch.randn(3, 5, 16, dtype=dtype, requires_grad=True)
    same = values.detach().clone().requires_grad_()
    expected, found = norm(values), fused(norm, same)
    assert found.dtype == expected.dtype
    assert torch.allclose(found, expected, atol=tolerance)
    expected.float().square().sum().backward()
    of_weight, norm.weight.grad = norm.weight.grad, None
    found.float().square().sum().backward()
    assert torch.allclose(norm.weight.grad, of_weight, atol=10 * tolerance, rtol=10 * tolerance)
    assert torch.allclose(same.grad, values.grad, atol=10 * tolerance, rtol=10 * tolerance)


def test_a_lower_precision_is_that_of_the_output_alone():
    values, weight = torch.randn(4, 16), torch.rand(16)
    assert torch.equal(rms_norm(values, weight, 1e-6, torch.bfloat16), rms_norm(values, weight, 1e-6).bfloat16())


def test_a_model_keeps_its_weights_their_names_and_on_a_cpu_its_numbers(tmp_path):
    model, _ = load_policy(str(tiny_t5(tmp_path)), None)
    exchange_modules(model)
    ids = torch.tensor([[5, 6, 7]])
    names = set(model.state_dict())
    exact = sum(isinstance(part, FusedNorm) and not part.rounds for part in model.modules())
    assert exact == 2  # the last of the encoder and of the decoder
    with torch.no_grad():
        before = model(input_ids=ids, decoder_input_ids=ids).logits
        for part in list(model.modules()):
            for name, child in part.named_children():
                if isinstance(child, FusedNorm):
                    norm = T5LayerNorm(len(child.weight), child.variance_epsilon)
                    norm.weight = child.weight
                    setattr(part, name, norm)
        assert torch.allclose(model(input_ids=ids, decoder_input_ids=ids).logits, before, atol=1e-5)
    exchange_modules(model)
    assert set(model.state_dict()) == names
