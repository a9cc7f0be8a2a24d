"""Static calls on pretended graphs: the numbers of eager functions to the last bit, and eager where a graph fails."""

import copy

import pytest
import torch
from torch import nn

from tests.pretend_graph import PretendGraphs, RunEagerly
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls, Work


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def learn_on(model, freeze_first=False):
    """A function that adds the gradient of a weighted squared error, and returns two statistics."""

    def learn(values, targets, weight):
        with torch.set_grad_enabled(True):
            hidden = model[0](values)
            errors = (model[2](model[1](hidden.detach() if freeze_first else hidden)) - targets) ** 2
            (errors.sum() * weight).backward()
        return {"error": errors.sum(), "largest": errors.max()}

    return learn


def batch(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 3, generator=generator)
    return {"values": values, "targets": values.sum(1, keepdim=True), "weight": torch.tensor(0.1 * seed)}


def train(maker, most=64, rounds=4, shapes=(4, 2, 4, 3), between=lambda model, step: None, set_to_none=True):
    """A few optimizer steps of two micro-batches each; the statistics of every call, and the trained model."""
    model = make_model()
    calls = StaticCalls(maker, most=most)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    found = []
    for step in range(rounds):
        for micro in range(2):
            inputs = batch(shapes[(step + micro) % len(shapes)], seed=7 * step + micro + 1)
            found.append(calls("learn", learn_on(model), inputs, model))
            between(model, 2 * step + micro)
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
    return found, model, calls


def assert_same(one, other):
    for mine, theirs in zip(one[0], other[0], strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for mine, theirs in zip(one[1].parameters(), other[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_training_by_graphs_ends_with_the_weights_and_statistics_of_the_eager_functions(set_to_none):
    maker = PretendGraphs()
    by_graphs = train(maker, set_to_none=set_to_none)
    assert_same(by_graphs, train(RunEagerly(), set_to_none=set_to_none))
    assert_same(by_graphs, train(None, set_to_none=set_to_none))
    assert len(maker.graphs) == 3  # one a shape
    assert not by_graphs[2].eager


def test_the_least_recently_used_graph_gives_way_and_is_captured_again():
    maker = PretendGraphs()
    shapes = (4, 4, 2, 2, 4, 4)
    assert_same(train(maker, most=1, shapes=shapes, rounds=6), train(None, shapes=shapes, rounds=6))
    assert len(maker.graphs) > 2
    assert sum(bool(graph.calls) for graph in maker.graphs) == 1


def test_gradients_that_a_callback_cleared_or_replaced_are_what_the_next_call_adds_to():
    def clear_or_replace(model, step):
        if step % 4 == 0:
            model[0].weight.grad = None
        elif step % 4 == 2:
            model[0].weight.grad = model[0].weight.grad * 2

    assert_same(
        train(PretendGraphs(), shapes=(4,), between=clear_or_replace),
        train(None, shapes=(4,), between=clear_or_replace),
    )


def test_what_learns_nothing_keeps_no_gradient():
    model, calls = make_model(), StaticCalls(PretendGraphs())
    for seed in (1, 2):
        calls("critic", learn_on(model, freeze_first=True), batch(4, seed), model, known=True)
        assert model[0].weight.grad is None
        assert model[2].weight.grad is not None
        model.zero_grad()
    calls("all", learn_on(model), batch(4, 3), model, known=False)
    assert model[0].weight.grad is not None


def test_weights_that_moved_are_noticed_and_captured_again(caplog):
    def move(model, step):
        if step == 3:
            for weight in model.parameters():
                weight.data = weight.data.clone()

    maker = PretendGraphs()
    assert_same(train(maker, shapes=(4,), between=move), train(None, shapes=(4,)))
    assert len(maker.graphs) == 2
    assert [record.message for record in caplog.records] == [
        "learn: the weights of the model have moved; its graph is captured again"
    ]


def test_training_mode_precision_and_known_settings_have_graphs_of_their_own():
    maker = PretendGraphs()
    model, calls = make_model(), StaticCalls(maker, tolerance=0.1)
    for training in (True, False):
        model.train(training)
        for known in (1, 2):
            calls("learn", learn_on(model), batch(4, 1), model, known=known)
    with torch.autocast("cpu", torch.bfloat16):
        calls("learn", learn_on(model), batch(4, 1), model, known=2)
    assert len(maker.graphs) == 5


class Fails(PretendGraphs):
    """Graphs whose replay number `at` raises."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def capture(self, work):
        graph = super().capture(work)
        replay = graph.replay

        def failing():
            if self.replays == self.at:
                raise RuntimeError("an illegal memory access")
            replay()

        graph.replay = failing
        return graph


@pytest.mark.parametrize("at", [0, 1, 4])
def test_an_error_while_replaying_ends_the_graphs_of_that_function_and_not_the_run(at, caplog):
    found = train(Fails(at), shapes=(4,))
    assert_same(found, train(None, shapes=(4,)))
    assert found[2].eager == {"learn"}
    assert [record.message for record in caplog.records] == [
        "learn runs without a CUDA graph for the rest of this run. RuntimeError: an illegal memory access"
    ]


def test_when_memory_runs_out_all_graphs_give_back_theirs(caplog):
    class OutOfMemory(PretendGraphs):
        def capture(self, work):
            if self.graphs:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().capture(work)

    maker = OutOfMemory()
    found = train(maker)
    assert_same(found, train(None))
    assert not found[2].by_graph("anything")
    assert not any(graph.calls for graph in maker.graphs)
    assert "Everything runs without a CUDA graph for the rest of this run. OutOfMemoryError" in caplog.text


def test_what_is_too_large_to_be_compared_takes_no_graph_from_the_others(caplog):
    class Large(Work):
        runs = 0

        def run(self):
            self.runs += 1

        def eagerly(self):
            raise torch.OutOfMemoryError("CUDA out of memory")

        def moving(self):
            return []

        def compared(self, eager):
            raise AssertionError("nothing to compare")

    calls, work = StaticCalls(PretendGraphs()), Large()
    calls.run("large", work)
    assert work.runs == 1
    assert (calls.by_graph("large"), calls.by_graph("other")) == (False, True)
    assert "large runs without a CUDA graph for the rest of this run. OutOfMemoryError" in caplog.text


def test_a_capture_that_waits_for_the_device_ends_the_graphs_of_that_function_alone(caplog):
    model, calls = make_model(), StaticCalls(PretendGraphs())

    def waits(values):
        loss = model(values).sum()
        loss.backward()
        return {"loss": loss * float(loss.item() > -1e9)}

    values = torch.ones(2, 3)
    expected = copy.deepcopy(model)
    expected(values).sum().backward()
    found = calls("waits", waits, {"values": values}, model)
    assert torch.equal(found["loss"], expected(values).sum())
    assert torch.equal(model[0].weight.grad, expected[0].weight.grad)
    (message,) = caplog.messages
    assert message.startswith("waits runs without a CUDA graph for the rest of this run. RuntimeError")
    assert "waits for the device" in message
    calls("learn", learn_on(model), batch(4, 1), model)
    calls("waits", waits, {"values": values}, model)
    assert calls.eager == {"waits"}
    assert len(calls.maker.graphs) == 1
    assert len(caplog.messages) == 1


def test_a_first_replay_that_differs_is_dropped_with_what_differed(caplog):
    model, calls = make_model(), StaticCalls(PretendGraphs())
    count = []

    def counts(values):
        count.append(1)
        loss = model(values).sum() * len(count)
        loss.backward()
        return {"loss": loss}

    values = torch.ones(2, 3)
    assert calls("counts", counts, {"values": values}, model)["loss"] == model(values).sum() * len(count)
    assert "GraphMismatchError: loss of the first replay differs from the eager pass by" in caplog.text
    assert calls.eager == {"counts"}


def test_of_what_holds_much_memory_few_are_kept():
    class Large:
        dropped = False

        def drop(self):
            self.dropped = True

    model, calls = make_model(), StaticCalls(PretendGraphs())
    calls("learn", learn_on(model), batch(4, 1), model)
    first, second, third = (calls.kept("large", known, model, Large, most=2) for known in range(3))
    assert (first.dropped, second.dropped, third.dropped) == (True, False, False)
    assert calls.kept("large", 1, model, Large, most=2) is second
    assert calls.maker.graphs[0].calls  # another name's


def test_inputs_may_be_left_out():
    model, maker = make_model(), PretendGraphs()
    calls = StaticCalls(maker)

    @torch.no_grad()
    def add(values, more):
        return {"sum": model(values) if more is None else model(values) + more}

    values, more = torch.ones(2, 3), torch.full((2, 1), 5.0)
    for _ in range(2):
        without = calls("add", add, {"values": values, "more": None}, model)["sum"]
        both = calls("add", add, {"values": values, "more": more}, model)["sum"]
        assert torch.equal(both, without + 5)
    assert len(maker.graphs) == 2
