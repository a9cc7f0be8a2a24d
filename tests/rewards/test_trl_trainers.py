"""Real runs of TRL's trainers with our rewards: what they log is what `reward.score` says of what they saved."""

import pytest
import torch
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from tests.rewards.judges import judge, sentiment
from tests.rewards.tiny_causal import PROMPTS, prompts, tiny_causal
from trl_rewards_plugin.rewards import ClassifierReward, LengthReward, MultiClassifierReward, RewardStateCallback

CLOSE = {"rel": 0, "abs": 1e-5}
WEIGHTS = [1.0, 0.5, 0.1]
# TRL uses names that the newest transformers deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_causal(tmp_path_factory.mktemp("causal")))


def combined():
    good = ClassifierReward(judge(), label="good", name="quality")
    neutral = ClassifierReward(sentiment(), label="neutral", name="neutrality", pair="prompt")
    return MultiClassifierReward([good, neutral, topic_length], WEIGHTS, name="both")


def topic_length(completions, topic, **kwargs):
    return [float(len(one)) for one in topic]


class Saved:
    """Keeps what a trainer handed its rewards, one entry a call; as a reward itself it says 0."""

    __name__ = "saved"

    def __init__(self):
        self.calls = []

    def __call__(self, completions, prompts, topic, **kwargs):
        self.calls.append((list(completions), list(prompts), list(topic)))
        return [0.0] * len(completions)


class Tables(TrainerCallback):
    """Keeps each step's completions, of TRL trainers that log them but write no file."""

    def __init__(self):
        self.trainer = None
        self.tables = []

    def on_log(self, args, state, control, **kwargs):
        logs = self.trainer._logs
        self.tables.append(
            {name: list(logs[name]) for name in ("prompt", "completion")}
            | {name: list(values) for name, values in logs["rewards"].items()}
        )


def settings(output_dir, **further):
    return {
        "output_dir": str(output_dir), "max_steps": 2, "per_device_train_batch_size": 8, "max_completion_length": 6,
        "logging_steps": 1, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True,
        "bf16": False, "learning_rate": 1e-2, "seed": 0, **further,
    }  # fmt: skip


def steps(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def grpo(model, rewards, output_dir, **further):
    """A finished run and, of each step, its table of completions with their scores by the combined reward."""
    import pandas

    args = GRPOConfig(
        **settings(output_dir, num_generations=4, log_completions=True, num_completions_to_print=0, **further)
    )
    trainer = GRPOTrainer(model, rewards, args=args, train_dataset=prompts())
    trainer.train()
    scored = []
    for step in (1, 2):
        table = pandas.read_parquet(output_dir / "completions" / f"completions_{step:05d}.parquet")
        assert len(table) == 8
        assert len(set(table["completion"])) > 1
        topics = [f"topic {PROMPTS.index(prompt)}" for prompt in table["prompt"]]
        scored.append((table, combined().score(list(table["completion"]), list(table["prompt"]), topic=topics)))
    return trainer, scored


def check_components(trainer, scored):
    for step, (table, scores) in enumerate(scored):
        assert steps(trainer, "reward")[step] == pytest.approx(scores.total.mean().item(), **CLOSE)
        for name, values in scores.components.items():
            assert list(table[name]) == pytest.approx(values.tolist(), **CLOSE)
            assert steps(trainer, f"rewards/{name}/mean")[step] == pytest.approx(values.mean().item(), **CLOSE)


def test_grpo_logs_the_components_as_metrics_and_columns(model, tmp_path):
    trainer, scored = grpo(model, combined(), tmp_path)
    check_components(trainer, scored)
    for table, scores in scored:
        assert list(table["both"]) == pytest.approx(scores.total.tolist(), **CLOSE)


@pytest.mark.parametrize(("config", "trainer"), [(GRPOConfig, GRPOTrainer), (RLOOConfig, RLOOTrainer)])
def test_targets_move_their_multipliers(config, trainer, model, tmp_path):
    parts = [LengthReward(unit="characters", name="long"), LengthReward(name="words")]
    reward = MultiClassifierReward(parts, constraints={"words": {"min": 1000}}, name="both")
    args = config(**settings(tmp_path, num_generations=4))
    run = trainer(model, reward, args=args, train_dataset=prompts(), callbacks=[RewardStateCallback(reward)])
    run.train()
    assert steps(run, "multiplier/words/min") == [10.0, 10.0]
    state = reward.state_dict()["constraints"]
    assert state["integrals"] == {"words": {"min": 10.0}}
    # A multiplier of 10 beside the objective's weight of 1, in the unit of words.
    assert steps(run, "weight/long") == pytest.approx([1 / 11] * 2)
    assert steps(run, "weight/words") == pytest.approx([10 / 11 / state["stds"]["words"]] * 2)


def test_gdpo_takes_the_components_one_by_one(model, tmp_path):
    reward = combined()
    parts = [reward.component(name) for name in reward.component_names()]
    check_components(
        *grpo(model, parts, tmp_path, reward_weights=WEIGHTS, multi_objective_aggregation="normalize_then_sum")
    )


def test_rloo_weights_the_components(model, tmp_path):
    reward, tables = combined(), Tables()
    parts = [reward.component(name) for name in reward.component_names()]
    args = RLOOConfig(**settings(tmp_path, num_generations=4, reward_weights=[*WEIGHTS, 0.0]))
    saved = Saved()
    trainer = RLOOTrainer(model, [*parts, saved], args=args, train_dataset=prompts(), callbacks=[tables])
    tables.trainer = trainer
    trainer.train()
    for step, (completions, asked, topics) in enumerate(saved.calls):
        scores = reward.score(completions, asked, topic=topics)
        assert tables.tables[step]["completion"] == completions
        for name, values in scores.components.items():
            assert tables.tables[step][name] == pytest.approx(values.tolist(), **CLOSE)
            assert steps(trainer, f"rewards/{name}/mean")[step] == pytest.approx(values.mean().item(), **CLOSE)
        assert steps(trainer, "reward")[step] == pytest.approx(scores.total.mean().item(), **CLOSE)


def test_rloo_takes_the_combination_whole(model, tmp_path):
    reward, tables = combined(), Tables()
    args = RLOOConfig(**settings(tmp_path, num_generations=4))
    trainer = RLOOTrainer(model, reward, args=args, train_dataset=prompts(), callbacks=[tables])
    tables.trainer = trainer
    trainer.train()
    for step, table in enumerate(tables.tables[:2]):
        topics = [f"topic {PROMPTS.index(prompt)}" for prompt in table["prompt"]]
        scores = reward.score(table["completion"], table["prompt"], topic=topics)
        assert table["both"] == pytest.approx(scores.total.tolist(), **CLOSE)
        assert steps(trainer, "rewards/both/mean")[step] == pytest.approx(scores.total.mean().item(), **CLOSE)
        if hasattr(trainer, "_log_metric"):  # TRL 1.13 and newer
            for name, values in scores.components.items():
                assert steps(trainer, f"rewards/{name}/mean")[step] == pytest.approx(values.mean().item(), **CLOSE)


@pytest.mark.parametrize("whole", [True, False])
def test_online_dpo_prefers_by_the_reward(model, tmp_path, whole):
    reward, saved = combined(), Saved()
    rewards = [reward] if whole else [reward.component(name) for name in reward.component_names()]
    weights = [1.0] if whole else WEIGHTS
    options = settings(tmp_path, reward_weights=[*weights, 0.0])
    options["max_new_tokens"] = options.pop("max_completion_length")
    config = OnlineDPOConfig(**options)
    trainer = OnlineDPOTrainer(
        model=model,
        reward_funcs=[*rewards, saved],
        args=config,
        train_dataset=prompts(),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    assert len(saved.calls) == 2
    for step, (completions, asked, topics) in enumerate(saved.calls):
        assert len(completions) == 16  # two a prompt
        total = reward.score(completions, asked, topic=topics).total
        assert steps(trainer, "objective/scores")[step] == pytest.approx(total.mean().item(), **CLOSE)
        margins = (total[:8] - total[8:]).abs()
        assert steps(trainer, "objective/scores_margin")[step] == pytest.approx(margins.mean().item(), **CLOSE)


def test_a_reward_is_never_taken_for_a_module():
    assert not isinstance(combined(), torch.nn.Module)
    assert not isinstance(combined().component("quality"), torch.nn.Module)
