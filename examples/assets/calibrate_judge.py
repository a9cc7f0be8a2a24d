"""Divides a judge's logits by the temperature at which its probabilities fit a development set best.

    python calibrate_judge.py --judge FOLDER --dev dev.csv --out NEW_FOLDER

Fine-tuned classifiers are too sure of themselves, and one that has learnt to rank has logits of any size: a reward
made of them would have an arbitrary scale. The temperature minimises the cross-entropy with every label counting
alike (Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599), or is given by `--temperature`; no
verdict and no ranking changes.
Leaves out: training.
"""

import argparse
import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from measure_judge import logits, read_rows
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trl_rewards_plugin.assets import write_checksums
from trl_rewards_plugin.errors import InputError

TEMPERATURES = torch.arange(0.2, 20.0, 0.05)
SHARD = "14MB"
TOKENIZER_LEFTOVERS = (
    "is_local",
    "local_files_only",
    "max_length",
    "stride",
    "truncation_side",
    "truncation_strategy",
)


def best_temperature(scores: torch.Tensor, true: torch.Tensor, weights: torch.Tensor | None) -> float:
    """Of TEMPERATURES the one whose cross-entropy is least.

    Args:
        scores: (N, labels) logits.
        true: (N,) label indices.
        weights: (labels,), or None for all alike.
    """
    losses = [cross_entropy(scores / temperature, true, weight=weights) for temperature in TEMPERATURES]
    return TEMPERATURES[int(torch.stack(losses).argmin())].item()


@torch.no_grad()
def divide_logits(model: PreTrainedModel, temperature: float) -> None:
    """Divides weight and bias of the classifier, a linear layer, in place."""
    if not isinstance(model.classifier, torch.nn.Linear):
        raise InputError("a judge whose classifier is one linear layer", type(model.classifier).__name__, "use BERT's")
    for parameter in model.classifier.parameters():
        parameter /= temperature


def label_weights(rows: Sequence[tuple[str, int]], labels: int, balanced: bool) -> torch.Tensor | None:
    """Weights that make every label count alike in the loss; None for as frequent as it is."""
    if not balanced:
        return None
    counts = torch.bincount(torch.tensor([label for _, label in rows]), minlength=labels)
    return len(rows) / (labels * counts)


def save_judge(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Replaces the folder `out`, in one rename, by the judge with its weights in fp16 and its checksums."""
    fresh, old = out.with_name(f"{out.name}.fresh"), out.with_name(f"{out.name}.old")
    copy.deepcopy(model).half().save_pretrained(fresh, max_shard_size=SHARD)
    save_tokenizer(tokenizer, fresh)
    config = json.loads((fresh / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"  # fp16 is only how the file is kept; a judge computes in float32
    (fresh / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_checksums(fresh)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Saves `tokenizer` without what its last call or its loading left in it."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if name not in TOKENIZER_LEFTOVERS}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_new(out: Path) -> None:
    """Refuses a folder that is there already, before hours of work for it."""
    if out.exists():
        raise InputError("a new folder as --out", str(out), "name another folder or remove this one")


def main() -> None:
    """Fits, divides, saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder or Hub id of the judge")
    parser.add_argument("--dev", required=True, help="CSV file with columns text,label")
    parser.add_argument("--out", required=True, type=Path, help="new folder of the judge")
    parser.add_argument("--temperature", type=float, help="divide by this (default: what fits --dev best)")
    args = parser.parse_args()
    check_new(args.out)
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(args.judge, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.judge)
    dev = read_rows(args.dev, [model.config.id2label[index] for index in range(model.config.num_labels)])
    scores, true = logits(model, tokenizer, [text for text, _ in dev]), torch.tensor([label for _, label in dev])
    weights = label_weights(dev, model.config.num_labels, balanced=True)
    temperature = args.temperature or best_temperature(scores, true, weights)
    divide_logits(model, temperature)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_judge(model, tokenizer, args.out)
    figures = {"temperature": round(temperature, 2)}
    for name, used in (("before", 1.0), ("after", temperature)):
        figures[name] = round(cross_entropy(scores / used, true, weight=weights).item(), 4)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
