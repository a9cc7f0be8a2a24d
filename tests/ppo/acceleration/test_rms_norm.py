"""RMSNorm: the formula by hand, T5's own module, and finite differences."""

import torch
from transformers.models.t5.modeling_t5 import T5LayerNorm

from trl_rewards_plugin.ppo.acceleration.rms_norm import rms_norm


def test_a_row_by_hand():
    # The mean square of 3, 4, 0, 0 is 25 / 4; with 11 / 4 added its root is 3.
    normed = rms_norm(torch.tensor([[3.0, 4.0, 0.0, 0.0]]), torch.tensor([1.0, 3.0, 1.0, 1.0]), 2.75)
    torch.testing.assert_close(normed, torch.tensor([[1.0, 4.0, 0.0, 0.0]]))


def test_it_is_t5s_layer_norm():
    torch.manual_seed(0)
    module, values = T5LayerNorm(8), torch.randn(5, 8, requires_grad=True)
    torch.nn.init.normal_(module.weight)
    ours, own = rms_norm(values, module.weight, module.variance_epsilon), module(values)
    torch.testing.assert_close(ours, own)
    direction = torch.randn(5, 8)
    gradients = [torch.autograd.grad(output, (values, module.weight), direction) for output in (ours, own)]
    torch.testing.assert_close(*gradients)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    values, weight = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 6), (6,)))
    assert torch.autograd.gradcheck(lambda *given: rms_norm(*given, 1e-6), (values, weight))


def test_a_frozen_weight_gets_no_gradient():
    values, weight = torch.randn(2, 4, requires_grad=True), torch.ones(4)
    rms_norm(values, weight, 1e-6).sum().backward()
    assert values.grad is not None
    assert weight.grad is None
