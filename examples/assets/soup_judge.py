"""Takes a judge further on labelled rows without what it knows getting lost: a soup of copies, half way back to it.

    python soup_judge.py --judge FOLDER --train tweets/train.csv --dev tweets/dev.csv --tweets \
        --documents ewt.jsonl gum.jsonl --sources sources.md --out NEW_FOLDER

`--copies` of the judge learn the rows' labels, each with an order and dropout of its own, and are held near the
judge's own logits on the rows and on the documents' training sentences. The result has, of every weight, the middle
between the judge's and the copies' mean: averages of fine-tuned weights do better on texts unlike the training ones
than any of them (Wortsman et al. 2022, "Model soups", arXiv 2203.05482). It is calibrated on dev, measured and saved
like a distilled judge; its README is the old one with new figures and with this step. A killed run resumes when it is
started again. Leaves out: the teacher, which is not asked; choosing the copies that are worth it.
"""

import argparse
import json
from pathlib import Path

import torch
from calibrate_judge import check_new
from distil_judge import distil, document_sentences, go_half_way_back, gold_rows, save_measured
from fitting import Fit
from judge_card import how_made, then_made
from measure_judge import logits, measure, read_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH = 128
GOLD = 3.0  # weight of the labels beside the squared distance from the judge's own logits


def main() -> None:
    """Trains the copies one after the other, and saves their mean half way back to the judge."""
    args = parse_arguments()
    check_new(args.out)
    readme, sources = (path.read_text(encoding="utf-8") for path in (Path(args.judge) / "README.md", args.sources))
    made = how_made(readme, sources)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    model = AutoModelForSequenceClassification.from_pretrained(args.judge, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.judge)
    labels = list(model.config.id2label.values())
    gold, dev = gold_rows(args, labels), read_rows(args.dev, labels)
    texts = [text for text, _ in gold] + document_sentences(args)
    own = logits(model, tokenizer, texts, bf16=args.bf16).clone()  # out of inference mode, for autograd
    own -= own.mean(1, keepdim=True)
    model.base_model.embeddings.word_embeddings.requires_grad_(False)
    first = [weight.detach().clone() for weight in model.parameters()]
    mean = [torch.zeros_like(weight) for weight in first]
    true = torch.tensor([label for _, label in gold])

    def report() -> str:
        return json.dumps(measure(model, tokenizer, dev))

    log = []
    for copy in range(args.copies):
        set_weights(model, first)
        checkpoint = args.out.with_name(f"{args.out.name}.{copy}.checkpoint")
        how = Fit(BATCH, args.epochs, args.learning_rate, args.seed + copy, args.bf16, checkpoint)
        lines = distil(model, tokenizer, texts, own, true, how, report, gold_weight=GOLD)
        log += [f"copy {copy + 1}, {line}" for line in lines]
        for total, weight in zip(mean, model.parameters(), strict=True):
            total += weight.detach() / args.copies
    set_weights(model, mean)
    log.append(f"mean of the copies: {report()}")
    go_half_way_back(model, first)
    log.append(f"half way back: {report()}")
    print("\n".join(log[-2:]), flush=True)
    save_measured(
        model, tokenizer, args,
        lambda temperature: then_made(made, [*log, f"temperature {temperature:.2f}"]),
    )  # fmt: skip
    for path in args.out.parent.glob(f"{args.out.name}.*.checkpoint"):
        path.unlink()


@torch.no_grad()
def set_weights(model: torch.nn.Module, weights: list[torch.Tensor]) -> None:
    """Copies `weights` into the parameters, in their order."""
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        parameter.copy_(weight)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder of a BERT judge")
    parser.add_argument("--train", required=True, help="CSV file with columns text,label")
    parser.add_argument("--dev", required=True, help="CSV file kept aside, for the temperature and to measure on")
    parser.add_argument("--sources", required=True, type=Path, help="Markdown for the README: texts and licences")
    parser.add_argument("--out", required=True, type=Path, help="new folder of the judge")
    parser.add_argument("--pairs", help="CSV file with columns kind,good,bad")
    parser.add_argument("--pairs-each", type=int, default=100, help="training pairs of each kind (%(default)s)")
    parser.add_argument("--documents", nargs="*", default=[], help="JSONL files of real sentences")
    parser.add_argument("--tweets", action="store_true", help="rows also without the signs that only tweets have")
    parser.add_argument("--copies", type=int, default=3, help="copies to train (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="passes of each over rows and sentences (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="highest one (%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="train with matrix products in bfloat16")
    parser.add_argument("--seed", type=int, default=0, help="of the first copy's order and dropout (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
