"""The loop of the classic PPO tutorials, with one reward object in place of two hand-written score functions.

    python examples/classic_loop.py

For every batch: generate one response a query, score them, step, log. The bundled tiny models stand in for
google/flan-t5-small and `MultiClassifierReward.from_preset("article")`. About a minute on two CPU cores; prints:

    epoch 0, batch 0: mean reward 0.148 (acceptability 0.013, neutrality 0.269)
    ...
    epoch 0: mean reward 0.484, KL 1.135
    ...
    epoch 1: mean reward 0.692, KL 1.430
"""

from statistics import mean

from datasets import load_dataset

from trl_rewards_plugin import MultiClassifierReward, Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.assets import asset_path


def main(output_dir: str = "classic_loop", epochs: int = 2, batch_size: int = 64, rows: int = 320) -> None:
    """The loop: `rows` prompts, `epochs` times, `batch_size` at a time."""
    reward = MultiClassifierReward.from_preset("tiny")
    file = str(asset_path("prompts") / "train.jsonl")
    prompts = load_dataset("json", data_files=file, split="train").select_columns(["prompt"]).select(range(rows))
    config = Seq2SeqPPOConfig(
        output_dir=output_dir, learning_rate=1.5e-4, critic_learning_rate=3e-3, per_device_train_batch_size=batch_size,
        num_mini_batches=2, num_ppo_epochs=2, response_length=40, max_steps=epochs * (rows // batch_size),
        report_to="none",
    )  # fmt: skip
    trainer = Seq2SeqPPOTrainer(str(asset_path("tiny-t5")), reward, config, train_dataset=prompts)
    tokenizer = trainer.processing_class

    for epoch in range(epochs):
        epoch_rewards = []
        for number, batch in enumerate(trainer.dataloader):
            queries = batch["input_ids"]
            responses = trainer.generate(queries, do_sample=True, top_k=0, top_p=1.0)
            batch["raw"] = tokenizer.batch_decode(responses)  # special tokens and all, to look at
            batch["response"] = tokenizer.batch_decode(responses, skip_special_tokens=True)

            scores = reward.score(batch["response"])  # .components has each classifier's, .total their weighted sum
            parts = ", ".join(f"{name} {values.mean():.3f}" for name, values in scores.components.items())
            print(f"epoch {epoch}, batch {number}: mean reward {scores.total.mean():.3f} ({parts})")
            epoch_rewards += scores.total.tolist()

            stats = trainer.step(queries, responses, list(scores.total))
            trainer.log_stats(stats, batch, scores.total)
        print(f"epoch {epoch}: mean reward {mean(epoch_rewards):.3f}, KL {stats['objective/kl']:.3f}")
    trainer.save_model()


if __name__ == "__main__":
    main()
