"""TRL's own PPOTrainer, which TRL had up to 1.12 (pip install trl==1.12.0), with a reward as its reward model.

    python examples/trl_ppo.py                                       # offline: tiny random models
    python examples/trl_ppo.py Qwen/Qwen2.5-0.5B-Instruct article    # real ones; reward: a preset or .yaml file

TRL hands a reward model token ids; `as_reward_model` decodes them, finds the response behind the query that it knows,
and scores it. On a newer TRL, and for encoder-decoders on any, Seq2SeqPPOTrainer is the trainer to take.

The first prints (mean of the first five steps -> of the last five; words drawn at random to begin with):

    objective/scores: +0.13 -> +0.15
"""

import sys

import torch
from tiny_policy import load_prompts, print_change, save_policy
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from trl_rewards_plugin import MultiClassifierReward

try:
    from trl.experimental.ppo import PPOConfig, PPOTrainer
except ModuleNotFoundError as error:
    raise SystemExit("TRL's PPOTrainer is in TRL 1.0 to 1.12: pip install trl==1.12.0") from error


def main(
    model: str | None = None, reward_name: str = "tiny", output_dir: str = "runs/trl_ppo", **settings
) -> PPOTrainer:
    """Trains, and prints the mean reward in the first and in the last steps."""
    policy = model or save_policy(f"{output_dir}/policy")
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    queries = load_prompts().map(lambda row: {"input_ids": tokenizer(row["prompt"])["input_ids"]})
    queries = queries.remove_columns([name for name in queries.column_names if name != "input_ids"])
    defaults = {
        "total_episodes": 2560, "per_device_train_batch_size": 64, "response_length": 16, "stop_token": "eos",
        "temperature": 1.0, "learning_rate": 3e-3 if model is None else 3e-6, "logging_steps": 1, "report_to": "none",
        "num_sample_generations": 0, "save_strategy": "no", "disable_tqdm": True, "bf16": torch.cuda.is_available(),
    }  # fmt: skip
    reward = MultiClassifierReward.from_preset(reward_name)
    trainer = PPOTrainer(
        args=PPOConfig(output_dir=output_dir, **{**defaults, **settings}),
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(policy),
        ref_model=None,
        reward_model=reward.as_reward_model(tokenizer, prompts=list(queries["input_ids"])),
        value_model=AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1),
        train_dataset=queries,
    )
    trainer.train()
    print_change(trainer, ["objective/scores"])
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
