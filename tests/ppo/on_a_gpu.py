"""PPO on a pretended GPU (tests/pretend_gpu.py), in a process of its own; the last line that it prints is JSON.

python -m tests.ppo.on_a_gpu FOLDER
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch

import trl_rewards_plugin
from tests.ppo.test_trainer import make_trainer
from tests.pretend_gpu import GPU, pretended_gpu
from tests.tiny_models import tiny_bart, tiny_classifier, tiny_t5
from trl_rewards_plugin import ClassifierReward, MultiClassifierReward
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.sampling import sample_responses
from trl_rewards_plugin.ppo.rollout import Rollout

MAKERS = {"t5": tiny_t5, "bart": tiny_bart}


def trainer_of(folder: Path, family: str, device: str, **settings):
    """A trainer whose reward is a classifier on the same device."""
    model, judge = folder / family, folder / "judge"
    if not model.exists():
        MAKERS[family](model)
        tiny_classifier(judge)
    reward = MultiClassifierReward([ClassifierReward(str(judge), label="acceptable", name="judge", device=device)])
    settings = {"save_strategy": "steps", "save_steps": 1, "max_grad_norm": 0.0, "learning_rate": 1e-5, **settings}
    return make_trainer(str(model), folder / f"{family}_{device[:3]}", reward, **settings)


def measured(folder: Path, family: str, device: str, rollout: Rollout | None = None):
    """Greedy answers, their rewards and one update on a rollout, as plain numbers; and the rollout."""
    trainer = trainer_of(folder, family, device)
    trainer.create_optimizer_and_scheduler(num_training_steps=2)
    batch = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in trainer.data_collator(list(trainer.train_dataset)[:4]).items()
    }
    prompts = EncodedPrompts(batch["prompt_ids"], batch["prompt_mask"])
    answers = sample_responses(trainer._wrapped.core, prompts, trainer.rules, 20, greedy=True)
    if rollout is None:
        rollout = trainer.collect(batch)
    moved = {name: value.to(device) for name, value in rollout.tensors().items()}
    torch.manual_seed(0)
    found = {
        "answers": answers.ids.tolist(),
        "logprobs": answers.logprobs.tolist(),
        "update": trainer.update(dataclasses.replace(rollout, **moved), trainer.model),
        "weights": [float(weight.detach().double().sum()) for weight in trainer.model.parameters()],
    }
    return found, rollout


def waits_of(folder: Path, waits, **settings) -> int:
    """How often our own code waited for the GPU in a run of two rollouts; an alarm would look once more."""
    quiet = {"total_episodes": 8, "save_strategy": "no", "max_unended_share": None}
    trainer = trainer_of(folder, "t5", GPU, **quiet, **settings)
    waits.clear()
    trainer.train()
    return waits.within(Path(trl_rewards_plugin.__file__).parent)


def main(folder: Path) -> None:
    """Both families on rollouts that lie in the folder; then runs of T5 that differ in tokens and in mini-batches."""
    with pretended_gpu() as waits:
        numbers = {
            family: measured(folder, family, GPU, Rollout(**torch.load(folder / f"{family}.pt")))[0]
            for family in MAKERS
        }
        runs = {
            name: waits_of(folder, waits, **settings)
            for name, settings in {
                "6 tokens": {"response_length": 6},
                "12 tokens": {"response_length": 12},
                "2 epochs more": {"response_length": 6, "num_ppo_epochs": 4},
            }.items()
        }
        trainer_of(folder, "t5", GPU, total_episodes=4).train()
        longer = trainer_of(folder, "t5", GPU, total_episodes=8)
        longer.train(resume_from_checkpoint=True)
        reward = longer.evaluate()["eval_reward"]
    print(json.dumps({"numbers": numbers, "waits": runs, "steps": longer.state.global_step, "reward": reward}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
