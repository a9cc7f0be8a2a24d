"""The policy of the examples beside this file: a tiny decoder-only model with random weights, to run them offline.

It has the vocabulary of the bundled tiny T5 and starts out writing words at random. Leaves out: sense.
"""

import torch
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from trl_rewards_plugin.assets import asset_path


def save_policy(folder: str, seed: int = 0) -> str:
    """Saves the model and its tokenizer, and returns the folder."""
    tokenizer = AutoTokenizer.from_pretrained(asset_path("tiny-t5"), padding_side="left")
    tokenizer.backend_tokenizer.post_processor = None  # would put the end of the text behind every prompt
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def load_prompts() -> Dataset:
    """The bundled training prompts, column "prompt"."""
    return load_dataset("json", data_files=str(asset_path("prompts") / "train.jsonl"), split="train")


def print_change(trainer, keys: list[str]) -> None:
    """The mean of each logged number in the first five steps and in the last five."""
    for key in keys:
        values = [entry[key] for entry in trainer.state.log_history if key in entry]
        few = min(5, len(values))
        print(f"{key}: {sum(values[:few]) / few:+.2f} -> {sum(values[-few:]) / few:+.2f}")
