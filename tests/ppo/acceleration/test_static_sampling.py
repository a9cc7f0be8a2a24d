"""Sampling over fixed buffers, by the rules of a graph: draws of the eager step, scores of teacher forcing."""

import pytest
import torch

from tests.ppo.architectures.registry import ARCHITECTURES
from tests.pretend_graph import PretendGraphs, RunEagerly
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.architectures.families import family_of, make_deterministic
from trl_rewards_plugin.ppo.policy.policy import score_responses
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.sampling import encode_prompts, sample_responses
from trl_rewards_plugin.ppo.policy.token_rules import token_rules

SERVED = [each for each in ARCHITECTURES if family_of(each.build().config).static_decoding(each.build().config)]


def prompts_of(seed, pad_id):
    torch.manual_seed(seed)
    mask = torch.arange(16) < torch.randint(4, 17, (4, 1))
    return EncodedPrompts(torch.randint(5, 36, (4, 16)).where(mask, pad_id), mask)


def test_the_records_name_the_architectures_that_were_found_to_keep_to_fixed_buffers():
    assert len(SERVED) == 12 + 1  # T5 to Marian


@pytest.mark.parametrize("architecture", SERVED, ids=lambda each: each.name)
def test_draws_are_those_of_the_eager_step_and_log_probabilities_those_of_teacher_forcing(architecture):
    torch.manual_seed(0)
    model = architecture.build().eval()
    make_deterministic(model)
    rules = token_rules(model, min_new_tokens=3, temperature=0.9)
    by_graphs, eagerly = StaticCalls(PretendGraphs()), StaticCalls(RunEagerly())
    for seed in range(2):
        # Encoded beforehand: LongT5's encoder waits for the device, its decoder does not.
        prompts, drawn = encode_prompts(model, prompts_of(seed, rules.pad_id)), []
        for calls in (by_graphs, eagerly):
            torch.manual_seed(seed)
            drawn.append(sample_responses(model, prompts, rules, 8, calls=calls))
        ours, theirs = drawn
        assert torch.equal(ours.ids, theirs.ids)
        assert torch.equal(ours.logprobs, theirs.logprobs)
        with torch.no_grad():
            logprobs = score_responses(model, prompts, ours.ids, rules)[0].logprobs
        assert ((logprobs - ours.logprobs).abs() * ours.mask).max() < 1e-4
    assert not by_graphs.eager


def test_an_encoder_that_waits_for_the_device_leaves_the_other_graphs_alone(caplog):
    architecture = next(each for each in SERVED if "longt5" in each.name.lower())
    model = architecture.build().eval()
    rules, calls = token_rules(model), StaticCalls(PretendGraphs())
    drawn = []
    for sampler in (calls, calls, StaticCalls(RunEagerly())):
        torch.manual_seed(1)
        drawn.append(sample_responses(model, prompts_of(0, rules.pad_id), rules, 8, calls=sampler).ids)
    assert torch.equal(drawn[1], drawn[2])
    assert calls.eager == {"encoding"}
    assert calls.maker.replays > 8
    (message,) = caplog.messages
    assert message.startswith("encoding runs without a CUDA graph for the rest of this run.")
