"""TRL's RLOOTrainer for two classifiers and a length of one's own, each with its weight.

    python examples/rloo.py                                      # offline: a tiny random model, bundled judges
    python examples/rloo.py Qwen/Qwen2.5-0.5B-Instruct polite    # a real model; reward: a preset, or a .yaml file

On a small GPU the judges give their memory back between two scorings: `offload="cpu"` in ClassifierReward or the file.

The first prints (mean of the first five steps -> of the last five; words drawn at random to begin with):

    rewards/acceptability/mean: -0.46 -> -0.28
    rewards/neutrality/mean: +1.18 -> +1.28
    rewards/brevity/mean: -0.64 -> -0.61
"""

import sys

import torch
from tiny_policy import load_prompts, print_change, save_policy
from trl import RLOOConfig, RLOOTrainer

from trl_rewards_plugin import MultiClassifierReward


def brevity(completions, **kwargs):
    """A plain function in TRL's protocol mixes in: 0 for no words, -1 for twenty."""
    return [-len(text.split()) / 20 for text in completions]


def main(
    model: str | None = None, reward_name: str = "tiny", output_dir: str = "runs/rloo", **settings
) -> RLOOTrainer:
    """Trains, and prints each reward's mean in the first and in the last steps."""
    reward = MultiClassifierReward.from_preset(reward_name)
    defaults = {
        "max_steps": 40, "per_device_train_batch_size": 64, "num_generations": 8, "max_completion_length": 16,
        "learning_rate": 1e-2 if model is None else 1e-6, "logging_steps": 1, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": model is not None, "dataloader_pin_memory": torch.cuda.is_available(),
    }  # fmt: skip
    rewards = [*(reward.component(name) for name in reward.component_names()), brevity]
    trainer = RLOOTrainer(
        model or save_policy(f"{output_dir}/policy"),
        rewards,
        args=RLOOConfig(output_dir=output_dir, reward_weights=[*reward.weights, 0.5], **{**defaults, **settings}),
        train_dataset=load_prompts(),
    )
    trainer.train()
    print_change(trainer, [f"rewards/{one.__name__}/mean" for one in rewards])
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
