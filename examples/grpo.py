"""TRL's GRPOTrainer for a combined classifier reward, its components weighted one by one (GDPO, arXiv 2601.05242).

    python examples/grpo.py                                          # offline: a tiny random model, bundled judges
    python examples/grpo.py Qwen/Qwen2.5-0.5B-Instruct article       # a real model and the article's two classifiers

The same without a script: `trl grpo`, as in docs/how-to/own-reward.md, with `--reward_funcs
trl_rewards_plugin.rewards.presets.article`. The reward may also be passed whole, `reward_funcs=reward`: then its own
weights count, and each component is logged beside the total.

The first takes one to six minutes on two CPU cores, idle or busy, and prints (mean of the first five steps -> of the
last five; words drawn at random to begin with):

    rewards/acceptability/mean: -0.46 -> +0.06
    rewards/neutrality/mean: +1.19 -> +1.50
"""

import sys

import torch
from tiny_policy import load_prompts, print_change, save_policy
from trl import GRPOConfig, GRPOTrainer

from trl_rewards_plugin import MultiClassifierReward


def main(
    model: str | None = None, reward_name: str = "tiny", output_dir: str = "runs/grpo", **settings
) -> GRPOTrainer:
    """Trains, and prints each component's mean in the first and in the last steps."""
    reward = MultiClassifierReward.from_preset(reward_name)
    defaults = {
        "max_steps": 40, "per_device_train_batch_size": 64, "num_generations": 8, "max_completion_length": 16,
        "learning_rate": 1e-2 if model is None else 1e-6, "logging_steps": 1, "report_to": "none",
        "log_completions": True, "num_completions_to_print": 0, "save_strategy": "no", "disable_tqdm": True,
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": model is not None, "dataloader_pin_memory": torch.cuda.is_available(),
    }  # fmt: skip
    trainer = GRPOTrainer(
        model or save_policy(f"{output_dir}/policy"),
        [reward.component(name) for name in reward.component_names()],
        args=GRPOConfig(
            output_dir=output_dir,
            reward_weights=reward.weights,
            multi_objective_aggregation="normalize_then_sum",
            **{**defaults, **settings},
        ),
        train_dataset=load_prompts(),
    )
    trainer.train()
    print_change(trainer, [f"rewards/{name}/mean" for name in reward.component_names()])
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
