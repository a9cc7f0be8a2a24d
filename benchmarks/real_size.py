"""Models of the article's size with random weights, for the speed benchmarks: time does not depend on the weights.

A T5 of FLAN-T5-small's config, two classifiers of roberta-base's, and prompts of random words. One word is one token
to all of them, so lengths are what they are asked to be. With BENCHMARKS_SMOKE=1 in the environment all of it is tiny:
that shows that a benchmark runs, and its numbers mean nothing.
Leaves out: anything that could be learnt; the words mean nothing.
"""

import os
import platform
import random
import resource
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from trl_rewards_plugin import ClassifierReward, MultiClassifierReward
from trl_rewards_plugin.ppo.checkpoints.state import mark_untied_embeddings

SMOKE = os.environ.get("BENCHMARKS_SMOKE") == "1"
VOCABULARY = 400 if SMOKE else 32_128  # FLAN-T5's, with the unused rows at its end
SPECIAL = ("<pad>", "</s>", "<unk>", "<s>")
CLASSIFIERS = {"acceptability": 2, "neutrality": 3}  # labels of the article's judges
LABEL = "LABEL_1"
WEIGHTS = [1.0, 0.5]


def word_tokenizer(vocabulary: int = VOCABULARY) -> Tokenizer:
    """One token a word: "w4", "w5" ...; a text ends in EOS."""
    names = [*SPECIAL, *(f"w{row}" for row in range(len(SPECIAL), vocabulary))]
    core = Tokenizer(models.WordLevel({name: row for row, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return core


def make_tokenizer(vocabulary: int = VOCABULARY, max_length: int = 512) -> PreTrainedTokenizerFast:
    """The tokenizer that all models here share."""
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(vocabulary),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
    )


def make_policy(vocabulary: int = VOCABULARY, seed: int = 0) -> T5ForConditionalGeneration:
    """FLAN-T5-small: 8 + 8 layers of width 512, 6 heads of 64, gated-GELU of 1,024, an output matrix of its own."""
    torch.manual_seed(seed)
    size = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
    if SMOKE:
        size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    config = T5Config(
        **size,
        vocab_size=vocabulary,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        dropout_rate=0.1,
    )
    model = T5ForConditionalGeneration(config)
    model.lm_head = torch.nn.Linear(config.d_model, vocabulary, bias=False)  # transformers 5 builds every T5 tied
    model.lm_head.weight.data.normal_(std=0.02)  # the vocabulary is about equally likely
    return model


def make_classifier(labels: int, seed: int = 0, vocabulary: int = 50_265) -> RobertaForSequenceClassification:
    """roberta-base: 12 layers of width 768."""
    torch.manual_seed(seed)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(
        **(tiny if SMOKE else {}),
        vocab_size=vocabulary,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=labels,
        initializer_range=0.05,
        pad_token_id=0,
    )
    return RobertaForSequenceClassification(config)


def save_models(folder: Path) -> None:
    """Writes policy/ and a folder for each classifier, each with the tokenizer."""
    tokenizer = make_tokenizer()
    built = {"policy": make_policy()}
    built |= {name: make_classifier(labels, seed) for seed, (name, labels) in enumerate(CLASSIFIERS.items())}
    for name, model in built.items():
        model.save_pretrained(folder / name)
        mark_untied_embeddings(model, folder / name)
        tokenizer.save_pretrained(folder / name)


def make_reward(folder: Path) -> MultiClassifierReward:
    """The article's reward of the classifiers that `save_models` wrote."""
    parts = [ClassifierReward(folder / name, label=LABEL, name=name) for name in CLASSIFIERS]
    return MultiClassifierReward(parts, WEIGHTS)


def make_prompts(count: int, seed: int = 0, shortest: int = 224, longest: int = 287) -> list[str]:
    """Random words; with the EOS about 256 tokens each."""
    generator = random.Random(seed)
    if SMOKE:
        shortest, longest = 6, 12
    return [
        " ".join(
            f"w{generator.randrange(len(SPECIAL), min(VOCABULARY, 32_000))}"
            for _ in range(generator.randint(shortest, longest))
        )
        for _ in range(count)
    ]


def now(device: torch.device) -> float:
    """Seconds, when all that the device was given is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def machine(device: str = "cpu") -> dict:
    """What a result was measured on."""
    name = platform.processor() or platform.machine()
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").is_file():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def peak_memory_gib() -> float:
    """Most resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
