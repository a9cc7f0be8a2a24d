"""Distils a teacher into a small judge: the student learns the teacher's logits on many texts, most of them made up.

    python distil_judge.py --teacher TEACHER --train cola/train.csv --dev cola/dev.csv --pairs blimp.csv \
        --documents ewt.jsonl gum.jsonl --pieces 8000 --out FOLDER
    python distil_judge.py --teacher TEACHER --train tweets/train.csv --dev tweets/dev.csv --tweets \
        --documents ewt.jsonl gum.jsonl --layers 3 --pieces 8000 --out FOLDER

The texts: the rows of `--train`, both sentences of the training pairs, the documents' training sentences, and
`--copies` of each in which words are exchanged for their likes or, with a teacher of two labels (bad,good), which
are spoilt; the copy of a good text is taught to lie at least BELOW under it, whatever the teacher overlooks. The
rows' and pairs' own labels are mixed in. `--more-epochs` adds passes over the rows, pairs and sentences,
`--row-copies` of each row with words exchanged, and copies of the sentences that are spoilt anew each time; the judge
then has the mean of the weights before and after them. The teacher's answers are kept beside `--out` until the end,
and a killed run resumes when it is started again. The judge is calibrated on dev, measured, and saved with weights in
float16, a README that says how good it is and how it was made, and checksums. Leaves out: training the teacher;
choosing the best epoch.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from calibrate_judge import best_temperature, check_new, divide_logits, label_weights, save_judge
from corpus import plain, read_documents, read_pairs, sentences, split_documents
from corrupt import corrupt
from encoders import minilm, tiny_encoder
from fitting import Fit, fit
from judge_card import MADE, distilled, judge_card
from measure_judge import LEAST_WORDS, MOST_WORDS, held_out_sentences, logits, measure, read_rows
from torch.nn.functional import cross_entropy, normalize
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from vocabulary import cut_vocabulary

from trl_rewards_plugin.assets import write_checksums
from trl_rewards_plugin.errors import InputError

BATCH = 128
MOST_PIECES = 64  # word pieces of a text in training
POSITIONS = 128  # word pieces of a text that the saved judge can read
GOLD = 0.15  # weight of the rows' own labels beside the teacher's logits
LIKES = 12  # nearest neighbours that a word is exchanged for
EXCHANGED = 0.25  # share of a text's words
BELOW = 1.5  # nats, the least by which spoiling lowers good's logit less bad's
FAR_BELOW = 3.0  # likewise where copies are made anew, which the teacher is not asked about
ASKED_AT_ONCE = 2048  # texts that the teacher answers between two savings


class Likes:
    """Words with those whose embeddings are nearest by angle: mostly of the same part of speech and field."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]):
        pieces = tokenizer.get_vocab()
        used = {word.lower() for text in texts for word in text.split()}
        self.words = sorted(word for word in used & set(pieces) if word.isalpha())
        table = model.base_model.embeddings.word_embeddings.weight.detach()
        self.table = normalize(table[torch.tensor([pieces[word] for word in self.words])])
        self.rows = {word: row for row, word in enumerate(self.words)}
        self.near: dict[str, list[str]] = {}

    def of(self, word: str) -> list[str]:
        """The LIKES nearest of a known word."""
        if word not in self.near:
            nearest = (self.table @ self.table[self.rows[word]]).topk(min(LIKES + 1, len(self.words))).indices
            self.near[word] = [self.words[row] for row in nearest.tolist() if self.words[row] != word]
        return self.near[word]

    def exchange(self, text: str, rng: random.Random) -> str:
        """`text` with EXCHANGED of its known words, and no fewer than one, exchanged for likes."""
        tokens = text.split()
        known = [at for at, token in enumerate(tokens) if token.lower() in self.rows]
        for at in rng.sample(known, min(len(known), max(1, round(EXCHANGED * len(known))))):
            like = rng.choice(self.of(tokens[at].lower()))
            tokens[at] = like.capitalize() if tokens[at][0].isupper() else like
        return " ".join(tokens)


def gold_rows(args: argparse.Namespace, labels: Sequence[str]) -> list[tuple[str, int]]:
    """Labelled texts: the rows of --train, the sentences of the training pairs."""
    if args.pairs and len(labels) != 2:
        raise InputError("a teacher of two labels, bad,good, with --pairs", ",".join(labels), "leave out --pairs")
    pairs = read_pairs(args.pairs, args.pairs_each)[0] if args.pairs else []
    rows = read_rows(args.train, labels)
    if args.tweets:
        rows += [(plain(text), label) for text, label in rows if plain(text) != text]
    return rows + [row for good, bad in pairs for row in ((good, 1), (bad, 0))]


def document_sentences(args: argparse.Namespace) -> list[str]:
    """Sentences of the documents that no measurement sees."""
    documents = [document for path in args.documents for document in split_documents(read_documents(path))[0]]
    return list(sentences(documents, least_words=LEAST_WORDS, most_words=MOST_WORDS))


def make_texts(
    real: Sequence[str], args: argparse.Namespace, spoil: bool, likes: Likes
) -> tuple[list[str], dict[int, int]]:
    """The texts of `--epochs`: `real` ones first, then their copies.

    Also the row of each spoilt copy -> the row of its original.
    """
    rng = random.Random(args.seed)
    words = [word for text in real for word in text.split()]
    texts, spoilt = list(real), {}
    for _ in range(args.copies):
        for row, text in enumerate(real):
            if spoil and rng.random() < 0.5:
                spoilt[len(texts)] = row
                texts.append(corrupt(text, rng, words))
            elif not spoil and rng.random() < 0.5:
                left, right = text.split(), rng.choice(real).split()
                texts.append(" ".join(left[: len(left) // 2 + 1] + right[len(right) // 2 :]))
            else:
                texts.append(likes.exchange(text, rng))
    return texts, spoilt


def more_texts(real: Sequence[str], labels: Sequence[str], likes: Likes, args: argparse.Namespace) -> list[str]:
    """The texts of `--more-epochs`: `real` ones first, then `--row-copies` of each row of --train."""
    rng = random.Random(args.seed + 1)
    rows = read_rows(args.train, labels)
    return [*real, *(likes.exchange(text, rng) for _ in range(args.row_copies) for text, _ in rows)]


def lower(answers: torch.Tensor, spoilt: Mapping[int, int]) -> torch.Tensor:
    """(texts, 2) `answers`, those of spoilt copies of good texts lowered to BELOW or more under the originals'."""
    margins = answers[:, 1] - answers[:, 0]
    copies, originals = torch.tensor(list(spoilt)), torch.tensor(list(spoilt.values()))
    copies, originals = (rows[margins[originals] > 0] for rows in (copies, originals))
    margins[copies] = margins[copies].minimum(margins[originals] - BELOW)
    return torch.stack([-margins, margins], 1) / 2


def as_asked(texts: Sequence[str], args: argparse.Namespace) -> list[str]:
    """Texts as the teacher reads them, with `--tweets` without the signs that only tweets have."""
    return [plain(text) if args.tweets else text for text in texts]


def ask_teacher(folder: str, texts: Sequence[str], bf16: bool, answers: Path) -> torch.Tensor:
    """(texts, labels) the teacher's logits, less their mean over the labels; `answers` keeps what has come.

    Equal texts are asked about once.
    """
    once = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    places, texts = [once[text] for text in texts], list(once)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    known = torch.empty(0)
    if answers.exists():
        kept = torch.load(answers, weights_only=True)
        if kept["texts"] != digest:
            raise InputError(f"answers to these {len(texts)} texts in {answers}", "to other texts", "remove the file")
        known = kept["answers"]
    if len(known) < len(texts):
        teacher = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    while len(known) < len(texts):
        fresh = logits(teacher, tokenizer, texts[len(known) : len(known) + ASKED_AT_ONCE], bf16=bf16)
        known = torch.cat([known.view(-1, fresh.shape[1]), fresh])
        torch.save({"texts": digest, "answers": known}, answers)
        print(f"the teacher answered {len(known)} of {len(texts)} texts", flush=True)
    return (known - known.mean(1, keepdim=True))[places]


def load_encoder(args: argparse.Namespace, id2label: dict[int, str], texts: Sequence[str]) -> tuple:
    """(model with a new head, tokenizer) of the first `--layers`, the vocabulary still whole."""
    folder = args.encoder or (tiny_encoder(texts, args.out) if args.smoke else minilm())
    settings = {"num_hidden_layers": args.layers} if args.layers else {}
    torch.manual_seed(args.seed)
    label2id = {label: row for row, label in id2label.items()}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, id2label=id2label, label2id=label2id, dtype=torch.float32, **settings
    )
    return model, AutoTokenizer.from_pretrained(folder)


def distil(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    answers: torch.Tensor,
    gold: torch.Tensor,
    how: Fit,
    report: Callable[[], str],
    spoiled: range = range(0),
    gold_weight: float = GOLD,
) -> list[str]:
    """Fits `model`, in place, to the squared distance from `answers` and `gold_weight` times `gold`'s cross-entropy.

    Returns the log's key lines.

    Args:
        answers: (texts, labels) the teacher's logits, less their mean over the labels.
        gold: label indices of the first texts; the others have none.
        spoiled: of these texts, where the teacher calls them good, each batch has spoilt copies too: what lies less
            than FAR_BELOW under the original's answer adds its squared distance.
    """
    words = [word for row in spoiled for word in texts[row].split()]
    margins = answers[:, -1] - answers[:, 0]

    def loss(batch: list[int]) -> torch.Tensor:
        rng = random.Random(int(torch.randint(2**31, ())) if spoiled else 0)  # torch's state is in the checkpoint
        good = [row for row in batch if row in spoiled and margins[row] > 0]
        copies = [corrupt(texts[row], rng, words) for row in good]
        inputs = tokenizer(
            [texts[row] for row in batch] + copies,
            padding=True, truncation=True, max_length=MOST_PIECES, return_tensors="pt",
        )  # fmt: skip
        scores, copied = model(**inputs).logits.float().split([len(batch), len(copies)])
        rows = torch.tensor(batch)
        distance = (scores - answers[rows]).square().sum(1).mean()
        if good:
            above = (copied[:, -1] - copied[:, 0] - (margins[good] - FAR_BELOW)).relu()
            distance = distance + above.square().sum() / 2 / len(batch)
        labelled = rows < len(gold)
        if not labelled.any():
            return distance
        return distance + gold_weight * cross_entropy(scores[labelled], gold[rows[labelled]])

    return fit(model, [len(text) for text in texts], loss, how, report)


@torch.no_grad()
def go_half_way_back(model: PreTrainedModel, weights: Sequence[torch.Tensor]) -> None:
    """Takes each parameter to the middle between itself and its earlier value in `weights`.

    That keeps what both have learnt, and loses much of what many passes over the same texts learn by heart (Wortsman
    et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
    """
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        parameter.lerp_(weight, 0.5)


def save_measured(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: argparse.Namespace,
    how_made: Callable[[float], str],
) -> None:
    """Calibrates, saves, measures what was saved, and describes it; the folder appears in one rename.

    Args:
        how_made: temperature -> the part of the README about how the judge came to be.
    """
    dev = read_rows(args.dev, [model.config.id2label[row] for row in range(model.config.num_labels)])
    true = torch.tensor([label for _, label in dev])
    weights = label_weights(dev, model.config.num_labels, balanced=False)
    temperature = best_temperature(logits(model, tokenizer, [text for text, _ in dev]), true, weights)
    divide_logits(model, temperature)
    fresh = args.out.with_name(f"{args.out.name}.measured")
    save_judge(model, tokenizer, fresh)
    saved = AutoModelForSequenceClassification.from_pretrained(fresh, dtype=torch.float32)
    held_out, pairs = held_out_sentences(args.documents), read_pairs(args.pairs)[1] if args.pairs else []
    figures = measure(saved, tokenizer, dev, held_out, pairs)
    print(json.dumps(figures), flush=True)
    title = args.out.name.replace("-", " ").capitalize()
    card = judge_card(title, saved, figures, how_made(temperature), args.sources.read_text(encoding="utf-8"))
    (fresh / "README.md").write_text(card, encoding="utf-8")
    write_checksums(fresh)
    fresh.rename(args.out)


def main() -> None:
    """Distils one judge, measuring it on dev after every epoch."""
    args = parse_arguments()
    check_new(args.out)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    id2label = AutoConfig.from_pretrained(args.teacher).id2label
    labels = list(id2label.values())
    spoil = len(labels) == 2
    gold = gold_rows(args, labels)
    real = [text for text, _ in gold] + document_sentences(args)
    model, tokenizer = load_encoder(args, id2label, [text for text, _ in gold])
    likes = Likes(model, tokenizer, [text for text, _ in gold])
    texts, spoilt = make_texts(real, args, spoil, likes)
    more = more_texts(real, labels, likes, args) if args.more_epochs else []
    tokenizer = cut_vocabulary(tokenizer, model, texts, args.pieces, POSITIONS)
    model.base_model.embeddings.word_embeddings.requires_grad_(False)
    print(f"{len(gold)} labelled of {len(texts)} texts, {model.num_parameters()} parameters", flush=True)
    kept, checkpoint = (args.out.with_name(f"{args.out.name}.{kind}") for kind in ("answers", "checkpoint"))
    asked = ask_teacher(args.teacher, as_asked([*texts, *more], args), args.bf16, kept)
    answers, more_answers = asked.split([len(texts), len(more)])
    if spoilt:
        answers = lower(answers, spoilt)
    dev = read_rows(args.dev, labels)

    def report() -> str:
        return json.dumps(measure(model, tokenizer, dev))

    how = Fit(BATCH, args.epochs, args.learning_rate, args.seed, args.bf16, checkpoint)
    true = torch.tensor([label for _, label in gold])
    log = distil(model, tokenizer, texts, answers, true, how, report)
    if more:
        more_checkpoint = args.out.with_name(f"{args.out.name}.more.checkpoint")
        how = Fit(BATCH, args.more_epochs, args.learning_rate, args.seed, args.bf16, more_checkpoint)
        documents = range(len(gold), len(real) if spoil else len(gold))
        first = [weight.detach().clone() for weight in model.parameters()]
        log += distil(model, tokenizer, more, more_answers, true, how, report, documents)
        go_half_way_back(model, first)
        log.append(f"half way back: {report()}")
    made = json.loads((Path(args.teacher) / MADE).read_text(encoding="utf-8"))
    save_measured(
        model, tokenizer, args,
        lambda temperature: distilled(made["command"], made["log"], [*log, f"temperature {temperature:.2f}"]),
    )  # fmt: skip
    for path in args.out.parent.glob(f"{args.out.name}.*"):
        if path.suffix in (".answers", ".checkpoint"):
            path.unlink()


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="folder that train_teacher.py wrote")
    parser.add_argument("--train", required=True, help="CSV file with columns text,label")
    parser.add_argument("--dev", required=True, help="CSV file kept aside, for the temperature and to measure on")
    parser.add_argument("--sources", required=True, type=Path, help="Markdown for the README: texts and licences")
    parser.add_argument("--out", required=True, type=Path, help="new folder of the judge")
    parser.add_argument("--encoder", help="BERT folder or Hub id that ignores case (default: the installed MiniLM)")
    parser.add_argument("--pairs", help="CSV file with columns kind,good,bad")
    parser.add_argument("--pairs-each", type=int, default=100, help="training pairs of each kind (%(default)s)")
    parser.add_argument("--documents", nargs="*", default=[], help="JSONL files of real sentences")
    parser.add_argument(
        "--tweets", action="store_true", help="ask the teacher without the signs that only tweets have"
    )
    parser.add_argument("--copies", type=int, default=1, help="altered copies of each text (%(default)s)")
    parser.add_argument("--layers", type=int, help="keep the first so many layers (default: all)")
    parser.add_argument("--pieces", type=int, default=8000, help="word pieces to keep (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over all texts (%(default)s)")
    parser.add_argument("--more-epochs", type=int, default=0, help="passes with copies of rows (%(default)s)")
    parser.add_argument("--row-copies", type=int, default=4, help="copies of each row in those (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="highest one (%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="matrix products in bfloat16, of the teacher too")
    parser.add_argument("--seed", type=int, default=0, help="of texts, head, order and dropout (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a tiny random encoder, to test the script in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
