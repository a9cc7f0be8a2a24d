"""The default job of `trl-rewards train` against the public names, without its measuring before and after.

    python examples/seq2seq_ppo.py

prints, beside each rollout's log:

    mean reward of a rollout: +0.23 at first, +0.74 at last
"""

from datasets import load_dataset

from trl_rewards_plugin import MultiClassifierReward, Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.assets import asset_path


def main(output_dir: str = "runs/example", **settings) -> Seq2SeqPPOTrainer:
    """Trains the bundled tiny T5 for 1.0 x acceptability + 0.5 x neutrality and saves it."""
    files = {split: str(asset_path("prompts") / f"{split}.jsonl") for split in ("train", "heldout")}
    prompts = load_dataset("json", data_files=files)
    defaults = {
        "num_train_epochs": 3.2, "per_device_train_batch_size": 64, "num_ppo_epochs": 2, "num_mini_batches": 2,
        "learning_rate": 1.5e-4, "critic_learning_rate": 3e-3, "response_length": 40,
    }  # fmt: skip
    trainer = Seq2SeqPPOTrainer(
        str(asset_path("tiny-t5")),
        MultiClassifierReward.from_preset("tiny"),
        args=Seq2SeqPPOConfig(output_dir=output_dir, seed=0, **{**defaults, **settings}),
        train_dataset=prompts["train"],
        eval_dataset=prompts["heldout"],
    )
    trainer.train()
    trainer.save_model(output_dir)
    rewards = [entry["objective/scores"] for entry in trainer.state.log_history if "objective/scores" in entry]
    print(f"mean reward of a rollout: {rewards[0]:+.2f} at first, {rewards[-1]:+.2f} at last")
    return trainer


if __name__ == "__main__":
    main()
