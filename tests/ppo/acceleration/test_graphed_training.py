"""Whole trainings on pretended graphs end with the weights, rewards and statistics of the eager functions."""

import dataclasses

import pytest
import torch
from peft import LoraConfig, TaskType

from tests.ppo.test_trainer import dataset, make_trainer, rollout_rows, vowels
from tests.pretend_graph import PretendGraphs, RunEagerly
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin import InputError, Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.ppo.acceleration import graphs
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
TIMES = {"loss/time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


@pytest.fixture
def trained(monkeypatch, tmp_path, folders):
    """Trains with a maker of graphs in the place of CUDA's; returns the trainer and all that it logged and learnt."""

    def train(maker, family="t5", resume=None, make=make_trainer, **settings):
        monkeypatch.setattr(graphs, "maker_for", lambda device: maker)
        torch.manual_seed(0)
        name = f"{family}-{type(maker).__name__}"
        trainer = make(str(folders[family]), tmp_path / name, **{"max_unended_share": None, **settings})
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
    plain = {"per_device_train_batch_size": 4, "response_length": 6, "total_episodes": 12, "num_mini_batches": 2}
    fixed = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    args = Seq2SeqPPOConfig(output_dir=str(folder), **plain, **fixed, **settings)
    return Seq2SeqPPOTrainer(model, vowels, args, train_dataset=dataset(16), peft_config=adapter)


def with_value_model(model, folder, **settings):
    trainer_args = {"per_device_train_batch_size": 4, "response_length": 6, "total_episodes": 12}
    fixed = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    args = Seq2SeqPPOConfig(output_dir=str(folder), **trainer_args, **fixed, **settings)
    return Seq2SeqPPOTrainer(model, vowels, args, train_dataset=dataset(16), value_model=model)


WAYS = {
    "plain": {},
    "adaptive KL, gradient accumulation": {"adaptive_kl": True, "gradient_accumulation_steps": 2},
    "several shapes in turn": {"response_length": 24, "num_ppo_epochs": 1},
    "several generations, KL in the loss": {
        "advantage_estimator": "grpo",
        "num_generations": 2,
        "use_kl_loss": True,
        "kl_estimator": "k3",
    },
    "a KL stop": {"early_stop_kl": 1e-4},
    "critic warm-up": {"critic_warmup_steps": 2},
    "frozen encoder": {"freeze_encoder": True},
    "evaluation, best model": {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_reward",
    },
    "bf16": {"bf16": True, "use_cpu": True},
    "minimum length, temperature": {"min_new_tokens": 3, "temperature": 0.7},
}


@pytest.mark.parametrize(
    ("family", "way"), [*(("t5", way) for way in WAYS), ("bart", "plain"), ("bart", "evaluation, best model")]
)
def test_a_training_by_graphs_is_the_same_training_to_the_last_bit(trained, family, way):
    maker = PretendGraphs()
    by_graphs = trained(maker, family, **WAYS[way])
    assert_same(by_graphs, trained(RunEagerly(), family, **WAYS[way]))
    assert not by_graphs[0].calls.eager
    assert maker.replays > 20


@pytest.mark.parametrize("make", [with_adapter, with_value_model])
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_adapters_and_value_models_are_trained_by_graphs_too(trained, family, make):
    maker = PretendGraphs()
    by_graphs = trained(maker, family, make=make)
    assert_same(by_graphs, trained(RunEagerly(), family, make=make))
    assert not by_graphs[0].calls.eager


def test_a_run_that_is_resumed_in_the_middle_is_the_uninterrupted_run(trained):
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole = trained(PretendGraphs(), **saving)
    checkpoint = f"{whole[0].args.output_dir}/checkpoint-2"
    resumed = trained(PretendGraphs(), resume=checkpoint, **saving)
    assert rollout_rows(whole[0]) == rollout_rows(resumed[0])
    assert all(torch.equal(whole[2][name], resumed[2][name]) for name in whole[2])


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("way", [{}, {"use_kl_loss": True, "kl_estimator": "k3", "kl_coef": 0.5}])
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


def test_a_setting_that_cannot_be_followed_is_refused(folders, tmp_path):
    with pytest.raises(InputError, match="cuda_graphs=True"):
        make_trainer(folders["t5"], tmp_path, cuda_graphs=True)


def test_graphs_can_be_left_out(trained, caplog):
    maker = PretendGraphs()
    trainer, _, _ = trained(maker, cuda_graphs=False, total_episodes=4)
    assert not maker.graphs
    assert trainer.calls.maker is None
