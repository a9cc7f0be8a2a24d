"""Averages two judges of one shape into one: keeps most of what each of them learnt last.

    python average_judges.py --judges PAIRS COLA --share 0.5 --dev dev.csv --documents ewt.jsonl --out FOLDER

`--share` is the second judge's: weight = (1 - share) x first + share x second. Where the second was trained from the
first, or both from one judge, the way between them passes no hill (Wortsman et al., "Robust fine-tuning of zero-shot
models", arXiv 2109.01903). Leaves out: choosing the share; try some and measure.
"""

import argparse
import json
from pathlib import Path

import torch
from measure_judge import held_out_sentences, measure, read_rows
from train_judge import save_judge
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from trl_rewards_plugin.errors import InputError


def average(first: PreTrainedModel, second: PreTrainedModel, share: float) -> PreTrainedModel:
    """`first`, with its weights moved towards those of `second` in place."""
    theirs = second.state_dict()
    own = first.state_dict()
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in theirs.items()}:
        raise InputError("two judges of one shape", "other weights or sizes", "train one of them from the other")
    if first.config.id2label != second.config.id2label:
        raise InputError(
            "two judges of the same labels",
            f"{first.config.id2label} and {second.config.id2label}",
            "train them alike",
        )
    first.load_state_dict({name: torch.lerp(value, theirs[name], share) for name, value in own.items()})
    return first


def main() -> None:
    """Averages, saves and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judges", nargs=2, required=True, help="folders of the two judges")
    parser.add_argument("--share", type=float, default=0.5, help="share of the second judge (%(default)s)")
    parser.add_argument("--dev", required=True, help="CSV file with columns text,label")
    parser.add_argument("--documents", nargs="*", default=[], help="JSONL document files; held-out ones are used")
    parser.add_argument("--out", required=True, type=Path, help="new folder of the judge")
    args = parser.parse_args()
    if args.out.exists():
        raise InputError("a new folder as --out", str(args.out), "name another folder or remove this one")
    torch.set_num_threads(1)
    first, second = (
        AutoModelForSequenceClassification.from_pretrained(judge, dtype=torch.float32) for judge in args.judges
    )
    tokenizer = AutoTokenizer.from_pretrained(args.judges[0])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_judge(average(first, second, args.share), tokenizer, args.out)
    saved = AutoModelForSequenceClassification.from_pretrained(args.out, dtype=torch.float32)
    labels = [saved.config.id2label[index] for index in range(saved.config.num_labels)]
    print(json.dumps(measure(saved, tokenizer, read_rows(args.dev, labels), held_out_sentences(args.documents))))


if __name__ == "__main__":
    main()
