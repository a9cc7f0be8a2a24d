"""Trains a teacher: a large classifier that small judges are distilled from and that benchmarks ask for its opinion.

    python train_teacher.py --train cola/train.csv --dev cola/dev.csv --labels unacceptable,acceptable \
        --pairs blimp.csv --documents ewt.jsonl gum.jsonl --out TEACHER
    python train_teacher.py --train tweets/train.csv --dev tweets/dev.csv --labels negative,neutral,positive \
        --tweets --epochs 2 --documents ewt.jsonl gum.jsonl --out TEACHER

The CSV files have columns text,label; a label is a name of `--labels` or its index. `--pairs`, for two labels
bad,good, is a CSV file with columns kind,good,bad, such as BLiMP: sentences that differ in one thing. Documents are
only measured on. Starts from MPNet base out of its PyPI packages or from any `--encoder`; its embeddings stay as
they are. Half an hour on two idle cores in float32; `--bf16` takes half of that where the CPU multiplies bfloat16
in hardware. A killed run resumes when it is started again. Leaves out: choosing the best epoch on dev, which is
only measured; GPUs.
"""

import argparse
import json
from pathlib import Path

import torch
from calibrate_judge import check_new
from corpus import in_half, plain, read_pairs
from encoders import mpnet, tiny_encoder
from fitting import Fit, fit
from judge_card import MADE, command_line
from measure_judge import held_out_sentences, measure, read_rows
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trl_rewards_plugin.assets import write_checksums
from trl_rewards_plugin.errors import InputError

BATCH = 32
MOST_PIECES = 64  # word pieces of a text in training

Row = tuple[str, int]


def read_training(args: argparse.Namespace, labels: list[str]) -> list[Row]:
    """Labelled rows of the half asked for, and both sentences of the training pairs."""
    if args.pairs and len(labels) != 2:
        raise InputError("two labels, bad,good, with --pairs", args.labels, "leave out --pairs")
    rows = [(plain(text) if args.tweets else text, label) for text, label in read_rows(args.train, labels)]
    pairs = read_pairs(args.pairs, args.pairs_each)[0] if args.pairs else []
    rows += [row for good, bad in pairs for row in ((good, 1), (bad, 0))]
    return [row for row in rows if in_half(row[0], args.half)]


def load_encoder(args: argparse.Namespace, labels: list[str], rows: list[Row]) -> tuple:
    """(model with a new head and frozen embeddings, tokenizer)."""
    folder = args.encoder or (tiny_encoder([text for text, _ in rows], args.out) if args.smoke else mpnet(args.out))
    torch.manual_seed(args.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, id2label=dict(enumerate(labels)), label2id={name: index for index, name in enumerate(labels)}
    )
    model.base_model.embeddings.requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(folder)


def main() -> None:
    """Trains one teacher, measuring it on dev after every epoch and on all that is held out at the end."""
    args = parse_arguments()
    check_new(args.out)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    labels = args.labels.split(",")
    rows = read_training(args, labels)
    dev = [(plain(text) if args.tweets else text, label) for text, label in read_rows(args.dev, labels)]
    held_out, pairs = held_out_sentences(args.documents), read_pairs(args.pairs)[1] if args.pairs else []
    model, tokenizer = load_encoder(args, labels, rows)
    print(f"{len(rows)} rows, {sum(p.numel() for p in model.parameters())} parameters")

    def loss(batch: list[int]) -> torch.Tensor:
        texts = [rows[row][0] for row in batch]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=MOST_PIECES, return_tensors="pt")
        return cross_entropy(model(**inputs).logits.float(), torch.tensor([rows[row][1] for row in batch]))

    def report() -> str:
        return json.dumps(measure(model, tokenizer, dev))

    checkpoint = args.out.with_name(f"{args.out.name}.checkpoint")
    how = Fit(BATCH, args.epochs, args.learning_rate, args.seed, args.bf16, checkpoint)
    log = fit(model, [len(text) for text, _ in rows], loss, how, report)
    log.append(f"all figures: {json.dumps(measure(model, tokenizer, dev, held_out, pairs))}")
    print(*log[-2:], sep="\n", flush=True)
    save(model, tokenizer, log, args.out)
    checkpoint.unlink()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, log: list[str], out: Path) -> None:
    """The finished teacher in float32, with the story of its making and its checksums, in one rename."""
    fresh = out.with_name(f"{out.name}.fresh")
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    (fresh / MADE).write_text(json.dumps({"command": command_line(), "log": log}, indent=2) + "\n", encoding="utf-8")
    write_checksums(fresh)
    fresh.rename(out)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="CSV file with columns text,label")
    parser.add_argument("--dev", required=True, help="CSV file kept aside, only measured on")
    parser.add_argument("--labels", required=True, help="names in the order of their indices: bad,good")
    parser.add_argument("--out", required=True, type=Path, help="new folder of the teacher")
    parser.add_argument("--encoder", help="folder or Hub id (default: MPNet base out of its packages)")
    parser.add_argument("--pairs", help="CSV file with columns kind,good,bad")
    parser.add_argument("--pairs-each", type=int, default=40, help="training pairs of each kind (%(default)s)")
    parser.add_argument("--documents", nargs="*", default=[], help="JSONL files whose held-out sentences are judged")
    parser.add_argument("--tweets", action="store_true", help="take away the signs that only tweets have")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the rows (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-5, help="highest one (%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="train with matrix products in bfloat16")
    parser.add_argument("--half", type=int, choices=(0, 1), help="learn from one half only (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of head, order and dropout (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a tiny random encoder, to test the script in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
