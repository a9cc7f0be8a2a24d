"""TRL's OnlineDPOTrainer: of two completions the one with the higher reward is preferred.

    python examples/online_dpo.py                                       # offline: a tiny random model, bundled judges
    python examples/online_dpo.py Qwen/Qwen2.5-0.5B-Instruct article    # a real model; reward: a preset or .yaml file

This trainer logs the total (objective/scores) and offers no place for components: `reward.score(texts)` has them.

The first prints (mean of the first five steps -> of the last five; words drawn at random to begin with):

    objective/scores: +0.09 -> +0.16
"""

import sys

import torch
from tiny_policy import load_prompts, print_change, save_policy
from transformers import AutoTokenizer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from trl_rewards_plugin import MultiClassifierReward


def main(
    model: str | None = None, reward_name: str = "tiny", output_dir: str = "runs/online_dpo", **settings
) -> OnlineDPOTrainer:
    """Trains, and prints the mean reward in the first and in the last steps."""
    policy = model or save_policy(f"{output_dir}/policy")
    defaults = {
        "max_steps": 40, "per_device_train_batch_size": 32, "max_new_tokens": 16, "beta": 0.1,
        "learning_rate": 3e-3 if model is None else 5e-7, "logging_steps": 1, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": model is not None, "dataloader_pin_memory": torch.cuda.is_available(),
    }  # fmt: skip
    trainer = OnlineDPOTrainer(
        model=policy,
        reward_funcs=MultiClassifierReward.from_preset(reward_name),
        args=OnlineDPOConfig(output_dir=output_dir, **{**defaults, **settings}),
        train_dataset=load_prompts(),
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
    )
    trainer.train()
    print_change(trainer, ["objective/scores"])
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
