"""Weights that are cast together give the output and the gradients of autocast to the last bit."""

import torch

from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.acceleration.fixed_shapes import fixed_shapes
from trl_rewards_plugin.ppo.acceleration.lower_precision import cast_together
from trl_rewards_plugin.ppo.policy.encoded_prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.load_policy import load_policy
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead
from trl_rewards_plugin.ppo.policy.token_rules import token_rules


def test_outputs_and_gradients_are_those_of_autocast(tmp_path):
    model = PolicyWithValueHead(load_policy(str(tiny_t5(tmp_path / "t5")), None)[0], sliced=True)
    rules = token_rules(model.core)
    prompts = EncodedPrompts(torch.randint(3, 30, (2, 6)), torch.ones(2, 6, dtype=torch.bool))
    ids = torch.randint(3, 30, (2, 4))
    read = []
    matrix = model.core.encoder.block[0].layer[0].SelfAttention.q
    matrix.register_forward_pre_hook(lambda layer, inputs: read.append(layer.weight.dtype))
    found = []
    for run in (model, lambda *given: cast_together(model, *given)):
        model.zero_grad()
        with fixed_shapes(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            output = run(prompts, ids, rules)
        (output.logprobs.sum() + output.values.sum()).backward()
        found.append([*output, *(weight.grad.clone() for weight in model.parameters() if weight.grad is not None)])
    assert read == [torch.float32, torch.bfloat16]
    assert matrix.weight.dtype == torch.float32
    assert len(found[0]) > 20
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))
