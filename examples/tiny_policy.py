"""The policy of the examples beside this file: a tiny decoder-only model with random weights, to run them offline.

It has the vocabulary of the bundled tiny T5 and starts out writing words at random. Leaves out: sense.
"""

from datasets import Dataset, load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from trl_rewards_plugin.assets import asset_path


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The tiny T5's, without the end of text that it would put behind every prompt."""
    tokenizer = AutoTokenizer.from_pretrained(asset_path("tiny-t5"), padding_side="left")
    tokenizer.backend_tokenizer.post_processor = None
    return tokenizer


def build_config(tokenizer: PreTrainedTokenizerBase, **options) -> LlamaConfig:
    """Two layers of width 64."""
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.pad_token_id, **options,
    )  # fmt: skip


def build_policy(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A random language model."""
    return LlamaForCausalLM(build_config(tokenizer))


def load_prompts() -> Dataset:
    """The bundled training prompts, column "prompt"."""
    return load_dataset("json", data_files=str(asset_path("prompts") / "train.jsonl"), split="train")
