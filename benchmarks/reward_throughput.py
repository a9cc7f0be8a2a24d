"""How fast a combined reward scores, beside `transformers.pipeline` on the same classifiers in the same process.

python benchmarks/reward_throughput.py [--device cuda] [--dtype bfloat16] [--output FILE.json]

Two roberta-base-sized classifiers with random weights (the time does not depend on them) score 512 real texts of 5 to
60 words: the bundled prompts, their single sentences, and pairs of neighbours among them. Compared in alternation,
`--repeats` times, of which the median counts:

    one        the article's way: pipeline(text), one text at a time, for each classifier
    batch32    pipeline(texts, batch_size=32), for each classifier
    reward     MultiClassifierReward

and, to see what each step is worth, the reward without it. On a CPU that others use too, read the seconds that this
process had it (with OMP_NUM_THREADS=1: waiting threads count as busy). All in float32 unless --dtype says otherwise
for the reward; the scores are compared with the pipeline's. Leaves out: loading, which none of the times holds.
"""

import argparse
import gc
import itertools
import json
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import real_size
import tokenizers
import torch
import transformers
from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward
from trl_rewards_plugin.rewards.inference import forward

WORDS = (5, 60)

Times = dict[str, list[tuple[float, float]]]
"""Way -> of each repeat, the seconds and the CPU seconds."""


def read_texts() -> list[str]:
    """The bundled prompts, their sentences, and each two neighbours as one text; distinct, in a fixed order."""
    prompts: list[str] = []
    for name in ("train", "heldout"):
        lines = (asset_path("prompts") / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        prompts += [json.loads(line)["prompt"] for line in lines]
    sentences = [sentence for prompt in prompts for sentence in re.split(r"(?<=[.!?]) ", prompt)]
    pairs = [f"{left} {right}" for left, right in itertools.pairwise(prompts)]
    return list(dict.fromkeys(sentences + prompts + pairs))


def choose(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of the texts of 5 to 60 words, drawn with `seed`."""
    fitting = [text for text in texts if WORDS[0] <= len(text.split()) <= WORDS[1]]
    return random.Random(seed).sample(fitting, count)


def build_classifiers(folder: Path, texts: Sequence[str], seed: int, layers: int) -> list[Path]:
    """Saves two random classifiers of roberta-base's size with one byte-level BPE tokenizer, trained here."""
    bpe = tokenizers.ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(texts, vocab_size=50_265, min_frequency=2, special_tokens=specials, show_progress=False)
    learnt = json.loads(bpe.to_str())["model"]
    tokenizer = RobertaTokenizer(vocab=learnt["vocab"], merges=[tuple(merge) for merge in learnt["merges"]])
    folders = []
    for index, labels in enumerate((2, 3)):
        torch.manual_seed(seed + index)
        config = RobertaConfig(
            vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, num_labels=labels,
            num_hidden_layers=layers, initializer_range=0.05,
        )  # fmt: skip
        path = folder / f"classifier{index}"
        RobertaForSequenceClassification(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
        folders.append(path)
    return folders


def pipeline_scores(pipes: Sequence, texts: list[str], **options) -> list[list[float]]:
    """The logit of LABEL_1 of each text by each pipeline."""
    found = []
    for pipe in pipes:
        if options:
            results = pipe(texts, function_to_apply="none", top_k=None, **options)
        else:
            results = [pipe(text, function_to_apply="none", top_k=None) for text in texts]
        found.append([next(one["score"] for one in rows if one["label"] == "LABEL_1") for rows in results])
    return found


@contextmanager
def in_order_of_arrival():
    """Batches as the texts come, 32 each."""

    def plain(lengths, batch_size=None, token_budget=None):
        return [list(range(start, min(start + 32, len(lengths)))) for start in range(0, len(lengths), 32)]

    with mock.patch.object(forward, "token_batches", plain):
        yield


@contextmanager
def sorted_32():
    """Batches by length, 32 texts each."""

    token_batches = forward.token_batches

    def by_count(lengths, batch_size=None, token_budget=None):
        return token_batches(lengths, 32, None)

    with mock.patch.object(forward, "token_batches", by_count):
        yield


@contextmanager
def own_tokens():
    """Each classifier tokenizes for itself."""

    def forgetful(self, tokenizer, fingerprint, rows, max_length):
        return forward.encode(tokenizer, rows, max_length)

    with mock.patch.object(forward.EncodingMemo, "encode", forgetful):
        yield


@contextmanager
def without_inference_mode():
    """`torch.no_grad` instead."""
    with mock.patch.object(forward.torch, "inference_mode", torch.no_grad):
        yield


STEPS: dict[str, Callable] = {
    "reward, batches of 32 in order": in_order_of_arrival,
    "reward, batches of 32 by length": sorted_32,
    "reward, tokenized twice": own_tokens,
    "reward, no_grad": without_inference_mode,
}


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of `work`, the device's queue included, and of them those that this process had the CPU."""
    gc.collect()
    start, cpu_start = real_size.now(device), time.process_time()
    work()
    return real_size.now(device) - start, time.process_time() - cpu_start


def main(argv: Sequence[str] | None = None) -> dict:
    """Measures, prints a table, writes JSON; returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12, help="roberta-base has 12")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", help="of the reward; the pipelines stay in float32")
    parser.add_argument("--no-steps", action="store_true", help="leave out the reward without each of its steps")
    parser.add_argument("--output", help="JSON file")
    arguments = parser.parse_args(argv)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known = read_texts()
    texts = choose(known, arguments.texts, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        folders = build_classifiers(Path(folder), known, arguments.seed, arguments.layers)
        seconds, difference = measure(folders, texts, arguments)
    report = describe(seconds, difference, texts, arguments)
    print(table(report))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def measure(
    folders: Sequence[Path], texts: list[str], arguments
) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """The times, and the largest difference of a score from the pipeline's."""
    device = torch.device(arguments.device)
    pipes = [
        transformers.pipeline("text-classification", model=str(path), device=device, dtype=torch.float32)
        for path in folders
    ]
    options = {"label": "LABEL_1", "device": device, "dtype": arguments.dtype}
    reward = MultiClassifierReward([ClassifierReward(path, name=path.name, **options) for path in folders], [1.0, 0.5])
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: pipeline_scores(pipes, texts),
        "batch32": lambda: pipeline_scores(pipes, texts, batch_size=32),
        "reward": lambda: reward.score(texts),
    }
    if not arguments.no_steps:
        for name, without in STEPS.items():
            ways[name] = lambda without=without: _within(without, lambda: reward.score(texts))
    pipeline_scores(pipes, texts[:32], batch_size=32)
    expected = torch.tensor(pipeline_scores(pipes, texts, batch_size=32))
    found = torch.stack(list(reward.score(texts).components.values()))
    difference = (found - expected).abs().max().item()
    seconds: Times = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, work in ways.items():
            # The tokens of the repeat before are not this one's to use.
            for part in reward.rewards:
                part._classifier.memo._last = None
            seconds[name].append(timed(work, device))
    return seconds, difference


def _within(context: Callable, work: Callable[[], object]) -> object:
    with context():
        return work()


def describe(seconds: Times, difference: float, texts: list[str], arguments) -> dict:
    """The result as plain values."""
    machine = real_size.machine(arguments.device)
    medians = {way: statistics.median(wall for wall, _ in values) for way, values in seconds.items()}
    cpu = {way: statistics.median(own for _, own in values) for way, values in seconds.items()}
    return {
        "device": machine["device"],
        "threads": machine["threads"],
        "versions": {name: machine[name] for name in ("torch", "transformers")},
        "seed": arguments.seed,
        "texts": len(texts),
        "words": sum(len(text.split()) for text in texts),
        "layers": arguments.layers,
        "dtype": arguments.dtype or "float32",
        "seconds": seconds,
        "median_seconds": medians,
        "median_cpu_seconds": cpu,
        "times_one": {way: medians["one"] / value for way, value in medians.items()},
        "times_batch32": {way: medians["batch32"] / value for way, value in medians.items()},
        "cpu_times_one": {way: cpu["one"] / value for way, value in cpu.items()},
        "cpu_times_batch32": {way: cpu["batch32"] / value for way, value in cpu.items()},
        "largest_difference": difference,
    }


def table(report: dict) -> str:
    """The result for a reader."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        f"{report['texts']} texts, {report['words']} words; {report['device']}, {report['threads']} threads; "
        f"{report['dtype']}; {versions}; seed {report['seed']}",
        f"{'':34}{'seconds':>9}{'x one':>8}{'x batch32':>11}{'CPU seconds':>14}{'x one':>8}{'x batch32':>11}",
    ]
    for way, value in report["median_seconds"].items():
        ratios = f"{report['times_one'][way]:8.2f}{report['times_batch32'][way]:11.2f}"
        own = f"{report['cpu_times_one'][way]:8.2f}{report['cpu_times_batch32'][way]:11.2f}"
        lines.append(f"{way:34}{value:9.2f}{ratios}{report['median_cpu_seconds'][way]:14.2f}{own}")
    lines.append(f"largest difference of a score from the pipeline's: {report['largest_difference']:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
