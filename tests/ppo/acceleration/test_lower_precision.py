"""Weights that are cast together give the output and the gradients of autocast to the last bit."""

import pytest
import torch

from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.acceleration.fixed_shapes import fixed_shapes
from trl_rewards_plugin.ppo.acceleration.lower_precision import cast_together
from trl_rewards_plugin.ppo.policy.load_policy import load_policy
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import token_rules


@pytest.mark.parametrize("frozen", [["encoder"], ["encoder", "decoder", "lm_head"], []])
def test_outputs_and_gradients_are_those_of_autocast(tmp_path, frozen):
    model = PolicyWithValueHead(load_policy(str(tiny_t5(tmp_path / "t5")), None)[0], sliced=True)
    for part in frozen:
        getattr(model.core, part).requires_grad_(False)
    rules = token_rules(model.core)
    prompts = EncodedPrompts(torch.randint(3, 30, (2, 6)), torch.ones(2, 6, dtype=torch.bool))
    ids = torch.randint(3, 30, (2, 4))
    read = []
    matrix = model.core.encoder.block[0].layer[0].SelfAttention.q
    matrix.register_forward_pre_hook(
        lambda layer, inputs: read.append((layer.weight.dtype, layer.weight.requires_grad))
    )
    found = []
    for run in (model, lambda *given: cast_together(model, *given)):
        model.zero_grad()
        with fixed_shapes(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            output = run(prompts, ids, rules)
        (output.logprobs.sum() + output.values.sum()).backward()
        found.append([*output[:3], *(weight.grad.clone() for weight in model.parameters() if weight.grad is not None)])
    assert read == [(torch.float32, not frozen), (torch.bfloat16, not frozen)]
    assert matrix.weight.dtype == torch.float32
    assert len(found[0]) == 3 + sum(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))


def test_parts_that_are_run_again_in_the_backward_pass_read_the_weights_themselves(tmp_path):
    model = PolicyWithValueHead(load_policy(str(tiny_t5(tmp_path / "t5")), None)[0])
    # The Trainer's name for it since transformers 5.23, and the one before.
    enable = getattr(model.core, "activation_checkpointing_enable", None) or model.core.gradient_checkpointing_enable
    enable()
    read = []
    matrix = model.core.decoder.block[0].layer[0].SelfAttention.q
    matrix.register_forward_pre_hook(lambda layer, inputs: read.append(layer.weight.dtype))
    prompts = EncodedPrompts(torch.tensor([[5, 6]]), torch.ones(1, 2, dtype=torch.bool))
    model.train()
    with fixed_shapes(), torch.autocast("cpu", torch.bfloat16):
        cast_together(model, prompts, torch.tensor([[7, 8]]), token_rules(model.core)).logprobs.sum().backward()
    assert read == [torch.float32] * 2
