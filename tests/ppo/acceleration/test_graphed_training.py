"""Whole trainings on pretended graphs end with the weights, rewards and statistics of the eager functions."""

import dataclasses

import pytest
import torch
from peft import LoraConfig, TaskType

from tests.ppo.test_trainer import make_trainer, rollout_rows
from tests.pretend_graph import PretendGraphs, RunEagerly
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin import InputError
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls, static_calls
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring import callbacks
from trl_rewards_plugin.ppo.update import UpdateContext, compute_advantages, run_update

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
SHORT = {"max_unended_share": None, "total_episodes": 12, "use_cpu": True}
TIMES = {"loss/time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


@pytest.fixture
def trained(monkeypatch, tmp_path, folders):
    """Trains with a maker of graphs in the place of CUDA's; returns the trainer and all that it logged and learnt."""

    def train(maker, family="t5", resume=None, make=make_trainer, **settings):
        monkeypatch.setattr("trl_rewards_plugin.ppo.acceleration.static_calls.maker_for", lambda device: maker)
        # A picture of curves would take longer than the run.
        monkeypatch.setattr(callbacks, "save_reward_curve", lambda log_history, path: None)
        torch.manual_seed(0)
        name = f"{family}-{type(maker).__name__}"
        trainer = make(str(folders[family]), tmp_path / name, **{**SHORT, **settings})
        trainer.train(resume_from_checkpoint=resume)
        log = [{k: v for k, v in row.items() if k not in TIMES} for row in trainer.state.log_history]
        return trainer, log, {name: value.clone() for name, value in trainer.model.state_dict().items()}

    return train


def assert_same(one, other):
    assert one[1] == other[1]
    assert one[2].keys() == other[2].keys()
    assert all(torch.equal(one[2][name], other[2][name]) for name in one[2])


def with_adapter(model, folder, **settings):
    adapter = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=2, init_lora_weights=False)
    return make_trainer(model, folder, peft_config=adapter, **settings)


def with_value_model(model, folder, **settings):
    return make_trainer(model, folder, value_model=model, **settings)


WAYS = {
    "plain": {},
    "adaptive KL, gradient accumulation, minimum length, temperature": {
        "adaptive_kl": True,
        "gradient_accumulation_steps": 2,
        "min_new_tokens": 3,
        "temperature": 0.7,
        "total_episodes": 16,
    },
    "several shapes in turn": {"response_length": 24, "num_ppo_epochs": 1},
    "several generations, KL in the loss": {
        "advantage_estimator": "grpo",
        "num_generations": 2,
        "use_kl_loss": True,
        "kl_estimator": "k3",
        "loss_type": "grpo",
        "entropy_coef": 0.01,
        "cliprange_high": 0.28,
        "mask_truncated_completions": True,
        "scale_rewards": "batch",
    },
    "the exact KL": {"kl_estimator": "full", "kl_coef": 0.5},
    "the exact KL in the loss": {"kl_estimator": "full", "use_kl_loss": True, "kl_coef": 0.5},
    "raft": {"objective": "raft", "num_generations": 2, "total_episodes": 16},
    "dpo": {"objective": "dpo", "num_generations": 2, "freeze_encoder": True, "total_episodes": 16},
    "a KL stop": {"early_stop_kl": 1e-4},
    "critic warm-up, frozen encoder": {"critic_warmup_steps": 1, "freeze_encoder": True},
    "evaluation, best model": {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_reward",
        "total_episodes": 8,
    },
    "bf16": {"bf16": True, "total_episodes": 8},
}
SLOW = pytest.mark.slow
CASES = [
    *(("t5", way) for way in WAYS if way != "plain"),
    ("bart", "plain"),
    pytest.param("t5", "plain", marks=SLOW),
    pytest.param("bart", "evaluation, best model", marks=SLOW),
]


@pytest.mark.parametrize(("family", "way"), CASES)
def test_a_training_by_graphs_is_the_same_training_to_the_last_bit(trained, family, way):
    maker = PretendGraphs()
    by_graphs = trained(maker, family, **WAYS[way])
    assert_same(by_graphs, trained(RunEagerly(), family, **WAYS[way]))
    assert not by_graphs[0].calls.eager
    assert maker.replays > 20


@pytest.mark.parametrize(
    ("family", "make"),
    [
        ("t5", with_adapter),
        ("bart", with_value_model),
        pytest.param("bart", with_adapter, marks=SLOW),
        pytest.param("t5", with_value_model, marks=SLOW),
    ],
)
def test_adapters_and_value_models_are_trained_by_graphs_too(trained, family, make):
    maker = PretendGraphs()
    by_graphs = trained(maker, family, make=make)
    assert_same(by_graphs, trained(RunEagerly(), family, make=make))
    assert not by_graphs[0].calls.eager


def test_a_run_that_is_resumed_in_the_middle_is_the_uninterrupted_run(trained):
    saving = {"save_strategy": "steps", "save_steps": 2, "total_episodes": 16}
    whole = trained(PretendGraphs(), **saving)
    checkpoint = f"{whole[0].args.output_dir}/checkpoint-2"
    resumed = trained(PretendGraphs(), resume=checkpoint, **saving)
    assert rollout_rows(whole[0]) == rollout_rows(resumed[0])
    assert all(torch.equal(whole[2][name], resumed[2][name]) for name in whole[2])


@pytest.mark.parametrize(
    ("family", "way"), [("t5", {"use_kl_loss": True, "kl_estimator": "k3", "kl_coef": 0.5}), ("bart", {})]
)
def test_padding_to_few_widths_changes_no_number_beyond_rounding(folders, tmp_path, family, way):
    def update_of(pad):
        trainer = make_trainer(str(folders[family]), tmp_path, num_ppo_epochs=1, **way)
        trainer.create_optimizer_and_scheduler(num_training_steps=2)
        torch.manual_seed(0)
        rollout = trainer.collect(trainer.data_collator([trainer.train_dataset[row] for row in range(4)]))
        if pad:
            trainer.calls = StaticCalls(fixed=True)
            fill = {"prompt_ids": trainer.rules.pad_id, "response_ids": trainer.rules.pad_id}
            wide = {
                name: torch.nn.functional.pad(value, (0, 10), value=fill.get(name, 0))
                for name, value in rollout.tensors().items()
                if value.dim() == 2
            }
            rollout = dataclasses.replace(rollout, **wide)
        torch.manual_seed(1)
        return trainer.update(rollout), trainer.model.state_dict()

    (plain, weights), (padded, same) = update_of(pad=False), update_of(pad=True)
    assert padded == pytest.approx(plain, abs=1e-5, rel=5e-5, nan_ok=True)
    assert all(torch.allclose(same[name], weights[name], atol=1e-5) for name in weights)


def test_a_mini_batch_that_is_not_finite_leaves_the_weights_good_where_it_is_read_later(trained):
    trainer, _, weights = trained(PretendGraphs(), total_episodes=4)
    rollout = trainer.collect(trainer.data_collator([trainer.train_dataset[row] for row in range(4)]))
    rewards = torch.where(rollout.response_mask, torch.inf, 0.0)
    batch = compute_advantages(rollout, rewards, trainer.args)
    context = UpdateContext(trainer.args, trainer.rules, trainer.framework(trainer.model), calls=trainer.calls)
    with pytest.raises(FloatingPointError, match="the update is not finite"):
        run_update(trainer.model, batch, 0.0, context)
    assert all(torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items())


def test_a_setting_that_cannot_be_followed_is_refused(folders, tmp_path):
    with pytest.raises(InputError, match="cuda_graphs=True"):
        make_trainer(folders["t5"], tmp_path, cuda_graphs=True)


@pytest.mark.parametrize("launcher", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_weights_that_the_launcher_shards_run_without_graphs(launcher, monkeypatch):
    maker = PretendGraphs()
    monkeypatch.setattr("trl_rewards_plugin.ppo.acceleration.static_calls.maker_for", lambda device: maker)
    args, model = Seq2SeqPPOConfig(output_dir="unused", report_to="none"), torch.nn.Linear(1, 1)
    assert static_calls(args, model).maker is maker
    monkeypatch.setenv(launcher, "")  # of a template of a job: no shards, as accelerate reads it
    assert static_calls(args, model).maker is maker
    monkeypatch.setenv(launcher, "true")
    assert static_calls(args, model).maker is None


def test_graphs_can_be_left_out(trained, caplog):
    maker = PretendGraphs()
    trainer, _, _ = trained(maker, cuda_graphs=False, total_episodes=4)
    assert not maker.graphs
    assert trainer.calls.maker is None
