"""PPO of an adapter: the bundled tiny T5 keeps its weights, LoRA learns. Then one plain model is made of both.

    python examples/lora.py

Needs `pip install peft`. The same from the command line: `trl-rewards train --use_peft`. A minute or two on two CPU
cores; prints at the end:

    27,648 of 3,914,304 weights learn: mean reward +0.08 at first, +0.61 at last
"""

from pathlib import Path

from datasets import load_dataset
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig

from trl_rewards_plugin import MultiClassifierReward, Seq2SeqPPOConfig, Seq2SeqPPOTrainer, generate_model_card
from trl_rewards_plugin.assets import asset_path


def main(output_dir: str = "runs/lora", **settings) -> None:
    """Trains the adapter, saves it, and merges it into the model."""
    prompts = load_dataset("json", data_files=str(asset_path("prompts") / "train.jsonl"), split="train")
    defaults = {
        "max_steps": 15, "per_device_train_batch_size": 32, "num_ppo_epochs": 2, "num_mini_batches": 2,
        "learning_rate": 1e-3, "critic_learning_rate": 3e-3, "response_length": 40, "report_to": "none",
    }  # fmt: skip
    trainer = Seq2SeqPPOTrainer(
        str(asset_path("tiny-t5")),
        MultiClassifierReward.from_preset("tiny"),
        Seq2SeqPPOConfig(output_dir=output_dir, seed=0, **{**defaults, **settings}),
        train_dataset=prompts,
        peft_config=LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=8, target_modules=["q", "v"]),
    )
    trainer.train()
    trainer.save_model(output_dir)  # the adapter alone
    learning, total = trainer.policy_model.get_nb_trainable_parameters()
    rewards = [entry["objective/scores"] for entry in trainer.state.log_history if "objective/scores" in entry]
    print(
        f"{learning:,} of {total:,} weights learn: mean reward {rewards[0]:+.2f} at first, {rewards[-1]:+.2f} at last"
    )
    AutoPeftModelForSeq2SeqLM.from_pretrained(output_dir).merge_and_unload().save_pretrained(f"{output_dir}/merged")
    trainer.processing_class.save_pretrained(f"{output_dir}/merged")  # without it nobody can use the merged model
    Path(output_dir, "merged", "README.md").write_text(generate_model_card(trainer, adapter=False), encoding="utf-8")


if __name__ == "__main__":
    main()
