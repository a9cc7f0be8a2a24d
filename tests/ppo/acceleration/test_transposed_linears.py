"""Turned linear layers: the same numbers, only where they can be, and nothing left behind."""

import pytest
import torch
from torch import nn

from trl_rewards_plugin.ppo.acceleration.transposed_linears import transposed_linears


class Layers(nn.Module):
    """Linear layers of several kinds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.plain, self.biased = nn.Linear(16, 24, bias=False), nn.Linear(16, 8)
        self.halved, self.patched = nn.Linear(16, 8).to(torch.bfloat16), nn.Linear(16, 8)
        self.patched.forward = self._patched

    @staticmethod
    def _patched(values):
        return values


@pytest.mark.parametrize("shape", [(16,), (1, 16), (2, 16), (5, 1, 16), (2, 3, 4, 16), (64, 16), (65, 16), (0, 16)])
@pytest.mark.parametrize("name", ["plain", "biased"])
def test_the_numbers_are_the_same(name, shape):
    layer = getattr(layers := Layers(), name)
    values = torch.randn(shape)
    with torch.no_grad():
        usual = layer(values)
        with transposed_linears(layers):
            turned = layer(values)
    assert turned.is_contiguous()
    torch.testing.assert_close(turned, usual)


def test_few_rows_are_turned_and_many_are_not():
    layers = Layers()
    with torch.no_grad(), transposed_linears(layers), torch.profiler.profile(record_shapes=True) as profile:
        layers.plain(torch.randn(4, 16))
        layers.plain(torch.randn(65, 16))
    shapes = [event.input_shapes for event in profile.events() if event.name == "aten::mm"]
    assert shapes == [[[24, 16], [16, 4]], [[65, 16], [16, 24]]]


def test_with_gradient_or_autocast_nothing_changes():
    layers = Layers()
    with transposed_linears(layers):
        assert "forward" not in vars(layers.plain)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), transposed_linears(layers):
        assert "forward" not in vars(layers.plain)


def test_another_thread_may_want_gradients_or_autocast_meanwhile():
    layers = Layers()
    values = torch.randn(4, 16)
    layers.biased(values).sum().backward()
    usual = layers.biased.weight.grad.clone()
    layers.zero_grad()
    with torch.no_grad(), transposed_linears(layers):
        with torch.enable_grad():
            layers.biased(values).sum().backward()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layers.biased(values).dtype == torch.bfloat16
    torch.testing.assert_close(layers.biased.weight.grad, usual)


def test_only_plain_float32_layers_take_part():
    layers = Layers()
    with torch.no_grad(), transposed_linears(layers):
        turned = {name for name, part in layers.named_modules() if "forward" in vars(part)}
    assert turned == {"plain", "biased", "patched"}
    assert layers.patched.forward == Layers._patched


def test_nothing_is_left_behind_also_after_an_error():
    layers = Layers()
    with pytest.raises(KeyError), torch.no_grad(), transposed_linears(layers):
        raise KeyError
    assert not any("forward" in vars(part) for part in (layers.plain, layers.biased, layers.halved))


def test_a_layer_that_another_thread_has_turned_back_is_left_as_it_is():
    layers = Layers()
    with torch.no_grad(), transposed_linears(layers):
        del layers.plain.forward
    assert not any("forward" in vars(part) for part in (layers.plain, layers.biased))


def test_a_weight_that_is_replaced_within_is_used():
    layers, values = Layers(), torch.ones(2, 16)
    with torch.no_grad(), transposed_linears(layers):
        layers.plain.weight = nn.Parameter(torch.zeros(24, 16))
        assert layers.plain(values).eq(0).all()
