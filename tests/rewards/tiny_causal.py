"""A tiny random decoder-only model for TRL's trainers, which do not take encoder-decoders."""

from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from tests.tiny_models import WORDS, word_tokenizer

PROMPTS = ["the cat is", "my book", "a dog and a cat", "we like", "the sea", "you go up", "he has", "near the river"]


def tiny_causal(folder: Path | str) -> Path:
    """Saves a random Llama, one that values (a single label), and their tokenizer of whole words; the folder."""
    folder = Path(folder)
    tokenizer = word_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], "$A")
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, bos_token_id=0, pad_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    assert config.vocab_size == len(WORDS) + 4
    LlamaForCausalLM(config).save_pretrained(folder)
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder / "value")
    return folder


def prompts() -> Dataset:
    """Eight prompts with a column of their own for rewards that ask for it."""
    return Dataset.from_dict({"prompt": PROMPTS, "topic": [f"topic {index}" for index in range(len(PROMPTS))]})
