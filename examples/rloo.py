"""TRL's RLOOTrainer for two classifiers and a length of one's own, each with its weight.

    python examples/rloo.py                                      # offline: a tiny random model, bundled judges
    python examples/rloo.py Qwen/Qwen2.5-0.5B-Instruct polite    # a real model; reward: a preset, or a .yaml file

On a small GPU the judges give their memory back between two scorings: `offload="cpu"` in ClassifierReward or the file.
"""

import sys

import torch
from tiny_policy import build_policy, load_prompts, load_tokenizer
from trl import RLOOConfig, RLOOTrainer

from trl_rewards_plugin import MultiClassifierReward


def brevity(completions, **kwargs):
    """A plain function in TRL's protocol mixes in: 0 for no words, -1 for twenty."""
    return [-len(text.split()) / 20 for text in completions]


def main(
    model: str | None = None, reward_name: str = "tiny", output_dir: str = "runs/rloo", **settings
) -> RLOOTrainer:
    """Trains, and prints each reward's mean in the first and in the last steps."""
    torch.manual_seed(0)
    reward = MultiClassifierReward.from_preset(reward_name)
    tokenizer = load_tokenizer() if model is None else None
    defaults = {
        "max_steps": 40, "per_device_train_batch_size": 64, "num_generations": 8, "max_completion_length": 16,
        "learning_rate": 3e-3 if model is None else 1e-6, "logging_steps": 1, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "bf16": torch.cuda.is_available(),
    }  # fmt: skip
    rewards = [*(reward.component(name) for name in reward.component_names()), brevity]
    trainer = RLOOTrainer(
        model or build_policy(tokenizer),
        rewards,
        args=RLOOConfig(output_dir=output_dir, reward_weights=[*reward.weights, 0.5], **{**defaults, **settings}),
        train_dataset=load_prompts(),
        processing_class=tokenizer,
    )
    trainer.train()
    for name in (one.__name__ for one in rewards):
        means = [entry[f"rewards/{name}/mean"] for entry in trainer.state.log_history if "reward" in entry]
        few = min(5, len(means))
        print(f"{name}: {sum(means[:few]) / few:+.2f} -> {sum(means[-few:]) / few:+.2f}")
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
