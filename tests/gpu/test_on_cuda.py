"""What must hold on a GPU: graphs give the eager numbers, a run resumes, nothing waits, memory comes back.

    pytest -m gpu -n 0

runs these on CUDA. Elsewhere the same tests run on pretended graphs, so that the tests themselves are known to work.
"""

import functools
import gc
import inspect
import weakref
from contextlib import contextmanager

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.ppo.test_trainer import make_trainer, rollout_rows
from tests.pretend_graph import PretendGraphs
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.acceleration.static_sampling import StaticSampler
from trl_rewards_plugin.ppo.monitoring import callbacks
from trl_rewards_plugin.ppo.policy.policy import policy_scores
from trl_rewards_plugin.ppo.rollout import join_rollouts

# What a driver or a library warns of on one machine and not on another says nothing about this package.
pytestmark = pytest.mark.filterwarnings("default")
CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
ON_CUDA = pytest.param("cuda", marks=CUDA)
FLOAT32 = 1e-5
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


@pytest.fixture(params=["pretended", ON_CUDA])
def machine(request, monkeypatch):
    """The kind of device that the trainers of a test are on. A picture of curves would take longer than the run."""
    monkeypatch.setattr(callbacks, "save_reward_curve", lambda log_history, path: None)
    if request.param == "pretended":
        monkeypatch.setattr(
            "trl_rewards_plugin.ppo.acceleration.static_calls.maker_for", lambda device: PretendGraphs()
        )
    return request.param


@pytest.fixture
def trainer_on(machine, folders, tmp_path):
    """Makes trainers of a model family on the machine, in float32 without TF32."""

    def make(family, name="run", **settings):
        torch.manual_seed(0)
        exact = {"use_cpu": machine != "cuda", "bf16": False, "tf32": False, "max_unended_share": None}
        return make_trainer(str(folders[family]), tmp_path / name, **{**exact, **settings})

    return make


def batch_of(trainer):
    """The first prompts, as the Trainer gives them to a step."""
    rows = [trainer.train_dataset[row] for row in range(trainer.args.per_device_train_batch_size)]
    return trainer._prepare_inputs(trainer.data_collator(rows))


def learn(trainer, rollout):
    """Statistics and gradients of one mini-batch of two micro-batches; the weights stay as they are."""
    torch.manual_seed(0)
    trainer.model.zero_grad()
    stats = trainer.update(rollout)
    return stats, [weight.grad.clone() for weight in trainer.model.parameters() if weight.grad is not None]


ONE_STEP = {"num_ppo_epochs": 1, "num_mini_batches": 1, "gradient_accumulation_steps": 2}


def ready_to_learn(trainer):
    """The trainer with an optimizer, and a rollout of two parts."""
    trainer.create_optimizer_and_scheduler(num_training_steps=2)
    parts = [trainer.collect(batch_of(trainer)) for _ in range(2)]
    return join_rollouts(parts, trainer.rules.pad_id)


def assert_close(one, other):
    """Two results of `learn` agree as float32 does."""
    assert one[0] == pytest.approx(other[0], rel=FLOAT32, abs=FLOAT32)
    norm = torch.stack([gradient.norm() for gradient in other[1]]).norm()
    difference = torch.stack([(a - b).norm() for a, b in zip(one[1], other[1], strict=True)]).norm()
    assert norm > 0
    assert difference / norm < FLOAT32


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_log_probabilities_of_sampling_and_of_records_are_those_of_eager_teacher_forcing(trainer_on, family):
    trainer = trainer_on(family, response_length=20)
    drawn = []
    for _ in range(3):  # the first captures, the others replay
        rollout = trainer.collect(batch_of(trainer))
        drawn.append(rollout.response_ids)
        eager = policy_scores(StaticCalls(), trainer._wrapped, rollout.prompts, rollout.response_ids, trainer.rules)
        for found in (rollout.sampled_logprobs, rollout.logprobs, rollout.ref_logprobs):
            difference = (found - eager.logprobs)[rollout.response_mask].abs().max()
            assert difference < FLOAT32
    assert not trainer.calls.eager
    assert any(one.shape != drawn[0].shape or not torch.equal(one, drawn[0]) for one in drawn[1:])


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_update_by_graphs_has_the_statistics_and_gradients_of_an_eager_one(trainer_on, family):
    by_graphs, eager = trainer_on(family, **ONE_STEP), trainer_on(family, "eager", cuda_graphs=False, **ONE_STEP)
    eager.create_optimizer_and_scheduler(num_training_steps=2)
    rollout = ready_to_learn(by_graphs)
    expected = learn(eager, rollout)
    for _ in range(2):  # the first micro-batch captures, the three others replay
        assert_close(learn(by_graphs, rollout), expected)
    assert not by_graphs.calls.eager
    assert eager.calls.maker is None


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_padding_to_few_shapes_changes_nothing(trainer_on, family):
    trainer = trainer_on(family, **ONE_STEP)
    rollout = ready_to_learn(trainer)
    assert rollout.prompt_ids.shape[1] == trainer.calls.widths.prompt
    assert rollout.lengths[0].max() < rollout.prompt_ids.shape[1]
    results = []
    for calls in (StaticCalls(fixed=True), StaticCalls()):
        trainer.calls = calls
        results.append(learn(trainer, rollout))
    assert_close(*results)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_run_goes_by_graphs_to_its_end(trainer_on, caplog, family):
    """Whatever waited for the device inside a captured function, or made a tensor there, would have ended it."""
    trainer = trainer_on(family, total_episodes=12)
    trainer.train()
    assert not trainer.calls.eager
    assert "CUDA graph for the rest" not in caplog.text
    assert "captured again" not in caplog.text


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_replay_does_not_wait_for_the_device(trainer_on, machine, monkeypatch, family):
    trainer = trainer_on(family, **ONE_STEP)
    rollout = ready_to_learn(trainer)
    learn(trainer, rollout)
    for work, name in ((StaticCalls, "__call__"), (StaticSampler, "advance")):
        monkeypatch.setattr(work, name, without_waiting(getattr(work, name), machine))
    trainer.collect(batch_of(trainer))
    learn(trainer, rollout)
    assert not trainer.calls.eager


def without_waiting(work, machine):
    """The method, in which it is an error to wait for the device."""

    @contextmanager
    def refusing():
        if machine == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if machine == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    @functools.wraps(work)
    def watched(*args, **kwargs):
        with refusing():
            return work(*args, **kwargs)

    return watched


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trainer_on, tmp_path, family):
    saving = {"save_strategy": "steps", "save_steps": 2, "total_episodes": 12, "num_ppo_epochs": 1}
    # Other kernels of attention add up in no fixed order on a GPU; this is about state and random numbers.
    with sdpa_kernel(SDPBackend.MATH):
        whole = trainer_on(family, "whole", **saving)
        whole.train()
        resumed = trainer_on(family, "resumed", **saving)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert _rollout_numbers(resumed) == _rollout_numbers(whole)
    for mine, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not whole.calls.eager
    assert not resumed.calls.eager


def _rollout_numbers(trainer):
    return [{name: value for name, value in row.items() if name != "loss/time"} for row in rollout_rows(trainer)]


def test_what_a_run_held_is_given_back(trainer_on, machine):
    def trained():
        trainer = trainer_on("t5", total_episodes=8, num_ppo_epochs=1)
        trainer.train()
        assert not trainer.calls.eager
        return weakref.ref(trainer.calls), weakref.ref(trainer.policy_model.get_input_embeddings().weight)

    def allocated():
        gc.collect()
        if machine != "cuda":
            return 0
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # kept by torch for each stream that was ever used
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    trained()  # libraries keep what they set up on first use
    before = allocated()
    calls, weight = trained()
    after = allocated()
    assert calls() is None
    assert weight() is None
    assert after - before < 4 * MEBIBYTE


@pytest.mark.parametrize("machine", [ON_CUDA], indirect=True)
@pytest.mark.skipif(
    "check_input_liveness" not in inspect.signature(torch.cuda.graph.__init__).parameters,
    reason="this torch does not check whether a graph's inputs are alive",
)
def test_whatever_a_graph_reads_is_alive_when_it_is_replayed(trainer_on, monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph", functools.partial(torch.cuda.graph, check_input_liveness=True))
    trainer = trainer_on("t5")
    trainer.train()
    assert not trainer.calls.eager
