"""The optimizer's step as a graph: the steps of the eager optimizer, whatever the schedule; nothing on bad numbers."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.pretend_graph import PretendGraphs
from trl_rewards_plugin.ppo.acceleration.optimizer_step import GraphedStep
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.distributed import Framework


def ready(maker, *, fused=True, max_norm=0.5):
    """A model, its optimizer of two groups with a falling learning rate, and what takes the steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    groups = [{"params": model[0].parameters(), "weight_decay": 0.1}, {"params": model[2].parameters(), "lr": 0.5}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, fused=fused)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=5)
    accelerator = SimpleNamespace(
        clip_grad_norm_=nn.utils.clip_grad_norm_, autocast=None, gather=None, num_processes=1
    )
    calls = StaticCalls(maker)
    return model, optimizer, schedule, GraphedStep(calls, Framework(accelerator, model, optimizer, max_norm)), calls


def learn(model, take_step, step, broken=False):
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    (model(values) ** 2).sum().mul(3).backward()
    norm = nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
    take_step(torch.stack([torch.tensor(torch.nan if broken else 1.0), norm]))


def train(maker, steps=6, **settings):
    model, optimizer, schedule, take_step, calls = ready(maker, **settings)
    for step in range(steps):
        learn(model, take_step, step)
        assert all(weight.grad is None for weight in model.parameters())
        schedule.step()
    return model, optimizer, calls


def assert_same(one, other, **tolerance):
    for mine, theirs in zip(one[0].parameters(), other[0].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(one[1].state[mine][name], other[1].state[theirs][name], **tolerance)


@pytest.mark.parametrize("max_norm", [0.5, 0.0])
def test_steps_by_a_graph_are_the_optimizers_own_under_a_schedule(max_norm):
    maker = PretendGraphs()
    by_graph = train(maker, max_norm=max_norm)
    assert_same(by_graph, train(None, max_norm=max_norm), rtol=1e-6, atol=1e-7)
    assert not by_graph[2].eager
    assert len(maker.graphs) == 1
    assert maker.replays == 5  # the first step makes the optimizer's state


def test_numbers_that_are_not_finite_move_neither_weights_nor_the_optimizers_state():
    model, optimizer, _, take_step, _ = ready(PretendGraphs())
    for step in range(2):
        learn(model, take_step, step)
    before = [value.clone() for state in optimizer.state.values() for value in state.values()]
    weights = [weight.detach().clone() for weight in model.parameters()]
    learn(model, take_step, 2, broken=True)
    after = [value for state in optimizer.state.values() for value in state.values()]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(before, after, strict=True))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights, model.parameters(), strict=True))


def test_only_a_step_by_a_graph_skips_bad_numbers():
    model, _, _, take_step, calls = ready(PretendGraphs())
    skips = []

    def observed(numbers):
        skips.append(take_step.skips_broken())
        take_step(numbers)

    for step in range(2):
        learn(model, observed, step)
    calls.give_up("the optimizer's step", "for the test")
    learn(model, observed, 2)
    assert skips == [False, True, False]  # the first makes the optimizer's state, as it always did


def test_a_state_that_was_loaded_is_what_the_next_step_moves_on():
    whole = train(None, steps=4)
    model, optimizer, schedule, take_step, _ = ready(PretendGraphs())
    for step in range(4):
        learn(model, take_step, step)
        schedule.step()
        optimizer.load_state_dict(optimizer.state_dict())
    assert_same((model, optimizer), whole, rtol=1e-6, atol=1e-7)


def test_another_optimizer_steps_eagerly_and_the_log_says_so_once(caplog):
    maker = PretendGraphs()
    found = train(maker, fused=False)
    assert_same(found, train(None, fused=False), rtol=0, atol=0)
    assert not maker.graphs
    (message,) = caplog.messages
    assert message.startswith(
        "the optimizer's step runs without a CUDA graph for the rest of this run. The optimizer is not"
    )
