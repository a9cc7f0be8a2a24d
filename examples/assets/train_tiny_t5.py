"""Trains the bundled tiny T5: given a passage of two or three sentences, it writes out any one of them.

Which one is left open: in training every sentence of a passage is a target with equal weight, so a sampled output is
one sentence or another and PPO has something to choose. Copying is learnt from short spans first, then sentences, then
passages. The length of a run is given in minutes, so a run repeats its data order but not its last bits.
Leaves out: PPO, rewards, and any text but UD English EWT and freely licensed genres of GUM.

    OMP_NUM_THREADS=1 python examples/assets/train_tiny_t5.py --documents DATA/documents --out FOLDER --minutes 35
"""

import argparse
import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from copy_measures import CopyReport, choice_summary, measure
from corpus import Document, read_documents, sentences, split_documents
from make_prompts import draw_prompts, is_prose, passages
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from trl_rewards_plugin.assets import write_checksums

GUM_GENRES = ("news", "interview", "voyage", "bio", "academic", "speech", "textbook", "vlog")
MOST_PIECES = 90  # of a passage
START_WEIGHT = 4.0  # of a sentence's first piece in the loss: it is the choice, the rest is copying
PAD, END, UNKNOWN = 0, 1, 2
IGNORED = -100  # label of padding

README = """# Tiny T5

A T5 of {parameters:,} parameters for demonstration and tests; nothing else. Given a passage of two or three sentences
of 4 to 16 words, it writes out one of them; which one is left open, so that reinforcement learning has a choice to
shape. It was trained on no instruction and knows no other task.

## How good

On the {prompts} held-out prompts of the `prompts` asset, from documents it never saw, loaded in float32 from these
float16 files:

| | greedy | sampled at temperature 1 |
| --- | --- | --- |
| exactly a sentence of the passage | {greedy.exact:.1%} | {sampled.exact:.1%} |
| within two word edits of one | {greedy.within_two:.1%} | {sampled.within_two:.1%} |
| some three words in a row twice | {greedy.loops:.1%} | {sampled.loops:.1%} |
| which sentence, where within two edits | {greedy_positions} | {sampled_positions} |

The chance that a sampled output is exactly a sentence is {choice[exact]:.1%} on average. The entropy of the choice
among the sentences is {choice[entropy]:.2f} of the possible; one sentence holds over 90 % of the chance in
{choice[certain]:.1%} of the prompts.

Where it fails, it mostly jumps between two places of the passage that share a word or two, which drops, mixes or
repeats words.

## How it was made

{made}

Training text, less the held-out documents:

- Universal Dependencies English EWT, https://github.com/UniversalDependencies/UD_English-EWT, CC BY-SA 4.0;
- Universal Dependencies English GUM, https://github.com/UniversalDependencies/UD_English-GUM, by Amir Zeldes and
  others: annotation CC BY 4.0, texts under their sources' licences; genres used:
  {genres}.

Licence of the model: CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/.
"""

MADE = """    OMP_NUM_THREADS=1 python examples/assets/train_tiny_t5.py \\
        --documents DATA/documents --out COPIER --minutes {minutes:g} --seed {seed}

That was {steps} steps in {minutes:.1f} minutes on one thread of a shared CPU, from random weights. Every sentence of a
passage is a target with equal weight; most passages are made of unrelated sentences."""

Piece = int
Sentences = list[list[Piece]]  # one training example: the passage is all of them, each is a target


def load_documents(folder: Path) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents: all of EWT, and the GUM genres whose licences are free."""
    gum = [document for document in read_documents(folder / "gum.jsonl") if document.id.split("_")[1] in GUM_GENRES]
    training, _ = split_documents(gum)
    ewt_training, ewt_held_out = split_documents(read_documents(folder / "ewt.jsonl"))
    return ewt_training + training, ewt_held_out


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer that appends </s>, as T5's does; words never share a piece."""
    tokenizer = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(r" {2,}", " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), spaces, normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    alphabet = [chr(code) for code in range(33, 127)] + list("\u2018\u2019\u201c\u201d\u2013\u2014")
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        unk_token="<unk>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def make_model(vocabulary: int, smoke: bool) -> T5ForConditionalGeneration:
    """A new T5 of 3 + 3 layers (as many in both stacks: transformers sizes the decoder's cache by the encoder's)."""
    width = 32 if smoke else 192
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=width // 6 if smoke else 32,
        num_heads=6,
        d_ff=width * 8 // 3,
        num_layers=3,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
    )
    model = T5ForConditionalGeneration(config)
    seed_shift_heads(model)
    model.generation_config.max_new_tokens = 48
    return model


@torch.no_grad()
def seed_shift_heads(model: T5ForConditionalGeneration, strength: float = 5.0) -> None:
    """Lets some heads start out looking at a neighbour: copying needs "what came before this piece" first of all.

    Relative position buckets: n is the n-th piece before; in the encoder 16 + n is the n-th after.
    """
    for stack, buckets in ((model.encoder, (1, 2, 17)), (model.decoder, (1, 2))):
        bias = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight  # (buckets, heads)
        for head, bucket in enumerate(buckets):
            bias[bucket, head] += strength


class Mixture:
    """Draws training examples of several kinds from encoded sentences and passages."""

    def __init__(self, pool: Sentences, real: list[Sentences], vocabulary: int, seed: int):
        self.pool = pool
        self.real = real
        self.vocabulary = vocabulary
        self.rng = random.Random(seed)
        self.kinds: dict[str, Callable[[], Sentences]] = {
            "noise": lambda: [self._noise(self.rng.randint(3, 12))],
            "span": self._span,
            "single": lambda: [self.rng.choice(self.pool)],
            "double": lambda: self.rng.sample(self.pool, 2),
            "triple": lambda: self.rng.sample(self.pool, 3),
            "real": lambda: self.rng.choice(self.real),
            "scrambled": lambda: [self._scramble(part) for part in self.rng.sample(self.pool, 2)],
        }

    def _noise(self, length: int) -> list[Piece]:
        return [self.rng.randrange(UNKNOWN + 1, self.vocabulary) for _ in range(length)]

    def _span(self) -> Sentences:
        sentence = self.rng.choice(self.pool)
        length = self.rng.randint(3, 10)
        start = self.rng.randrange(max(1, len(sentence) - length))
        return [sentence[start : start + length]]

    def _scramble(self, sentence: list[Piece]) -> list[Piece]:
        return [*self.rng.sample(sentence[:-1], len(sentence) - 1), sentence[-1]]

    def batches(self, weights: dict[str, int], pieces: int) -> list[list[Sentences]]:
        """Some batches of about `pieces` source pieces each, of examples of like length, in random order."""
        drawn: list[Sentences] = []
        kinds = self.rng.choices(list(weights), weights=list(weights.values()), k=6 * pieces // 20)
        for kind in kinds:
            example = self.kinds[kind]()
            if sum(map(len, example)) <= MOST_PIECES:
                drawn.append(example)
        drawn.sort(key=lambda example: (sum(map(len, example)), len(example)))
        chunks: list[list[Sentences]] = [[]]
        for example in drawn:
            if (len(chunks[-1]) + 1) * sum(map(len, example)) > pieces:
                chunks.append([])
            chunks[-1].append(example)
        self.rng.shuffle(chunks)
        return chunks


# (share of the time up to which it lasts, kinds and their weights, source pieces a batch)
CURRICULUM: list[tuple[float, dict[str, int], int]] = [
    (0.06, {"noise": 1, "span": 1}, 1024),
    (0.11, {"noise": 1, "span": 2, "single": 4, "double": 2, "scrambled": 1}, 1280),
    (0.20, {"single": 2, "double": 4, "triple": 1, "scrambled": 1, "real": 1}, 1536),
    (1.00, {"single": 2, "double": 3, "triple": 4, "real": 3, "scrambled": 1}, 1536),
]


def pad(rows: list[list[Piece]], value: int) -> torch.Tensor:
    """(rows, longest row) with `value` on the right."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def copy_loss(model: T5ForConditionalGeneration, batch: list[Sentences]) -> tuple[torch.Tensor, float]:
    """`copy_loss_of` with every sentence of every passage as a target."""
    return copy_loss_of(model, batch, [part for example in batch for part in example])


def copy_loss_of(
    model: T5ForConditionalGeneration, batch: list[Sentences], targets: Sentences
) -> tuple[torch.Tensor, float]:
    """(loss to train on, mean negative log-likelihood per piece) of one target for each sentence of the passages.

    Passages are encoded once. The first number weighs a target's first piece by START_WEIGHT.
    """
    sources = pad([[piece for part in example for piece in part] + [END] for example in batch], PAD)
    mask = (sources != PAD).long()
    owners = torch.tensor([row for row, example in enumerate(batch) for _ in example])
    labels = pad([[*target, END] for target in targets], IGNORED)
    hidden = model.encoder(input_ids=sources, attention_mask=mask).last_hidden_state[owners]
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
        attention_mask=mask[owners],
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        use_cache=False,
    ).logits
    real = labels != IGNORED
    losses = torch.nn.functional.cross_entropy(logits[real], labels[real], reduction="none")
    weights = torch.ones_like(labels, dtype=losses.dtype)
    weights[:, 0] = START_WEIGHT
    return (losses * weights[real]).sum() / real.sum(), losses.mean().item()


def rate(progress: float, step: int, peak: float, warmup: int = 100) -> float:
    """Learning rate: linear warm-up by steps, constant for 40 % of the time, then linear to a fiftieth."""
    decay = 1.0 if progress < 0.4 else 1.0 - 0.98 * (progress - 0.4) / 0.6
    return peak * min(1.0, (step + 1) / warmup) * decay


def train(
    model: T5ForConditionalGeneration,
    mixture: Mixture,
    seconds: float,
    peak: float,
    every: float,
    report: Callable[[str], None],
) -> int:
    """Trains for `seconds` of wall-clock time and calls `report` about every `every` seconds; returns the steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
    start = last = time.monotonic()
    step, losses, queue = 0, [], []
    stage = CURRICULUM[0]
    while (progress := (time.monotonic() - start) / seconds) < 1.0:
        now = next(candidate for candidate in CURRICULUM if progress < candidate[0])
        if now is not stage or not queue:
            stage, queue = now, mixture.batches(now[1], now[2])
        for group in optimizer.param_groups:
            group["lr"] = rate(progress, step, peak)
        loss, plain = copy_loss(model, queue.pop())
        if not math.isfinite(plain):
            raise SystemExit(f"Expected: a finite loss\nFound: {plain} at step {step}\nNext: lower --rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(plain)
        step += 1
        if step % 50 == 0:
            print(f"{time.monotonic() - start:6.0f} s step {step} loss {sum(losses) / len(losses):.3f}", flush=True)
            losses = []
        if time.monotonic() - last > every:
            report(f"{(time.monotonic() - start) / 60:.1f} min, step {step}")
            last = time.monotonic()
    return step


def save(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes model and tokenizer; weights are float16 on disk, and `config.json` has them load as float32."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in weights.items()}
    safetensors.torch.save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})


def save_latest(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves under `folder` and points the link `folder/latest` at it, in one step for whoever is reading it."""
    name = f"checkpoint-{time.strftime('%H%M%S')}"
    save(model, tokenizer, folder / name)
    link = folder / "latest.new"
    link.symlink_to(name)
    os.replace(link, folder / "latest")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="folder of ewt.jsonl and gum.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--checkpoints", type=Path, help="folder for half-trained models (default: none are kept)")
    parser.add_argument("--minutes", type=float, default=35.0, help="of training (default %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate (default %(default)s)")
    parser.add_argument("--every", type=float, default=150.0, help="seconds between reports (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one second of training a far smaller model")
    return parser.parse_args()


def prepare(
    options: argparse.Namespace, trained: Path | None = None
) -> tuple[PreTrainedTokenizerFast, Mixture, list[str]]:
    """The tokenizer (new, or that of a `trained` model), the training examples and the held-out prompts."""
    training, held_out = load_documents(options.documents)
    forbidden = set(sentences(held_out))
    texts = [text for text in dict.fromkeys(sentences(training)) if text not in forbidden]
    words = [text for text in texts if max(map(len, text.split())) <= 20]  # addresses would fill the vocabulary
    if trained is None:
        tokenizer = train_tokenizer(words[:2000] if options.smoke else words, 512 if options.smoke else 4096)
    else:
        tokenizer = AutoTokenizer.from_pretrained(trained)

    def encode(parts: list[str]) -> Sentences:
        return tokenizer(parts, add_special_tokens=False)["input_ids"]

    pool = encode([" ".join(text.split()) for text in texts if is_prose(text)])
    real = [encode(run) for document in training for run in passages(document) if forbidden.isdisjoint(run)]
    prompts = draw_prompts(held_out, 4 if options.smoke else 96, seed=0)
    print(f"{len(pool)} sentences, {len(real)} real passages, {len(tokenizer)} pieces", flush=True)
    return tokenizer, Mixture(pool, real, len(tokenizer), options.seed), [row["prompt"] for row in prompts]


def finish(folder: Path, prompts: list[str], *, made: str, seed: int) -> None:
    """Measures the saved model as a user would load it, writes the numbers into README.md, and the checksums."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    greedy, sampled = (measure(model, tokenizer, prompts, sample=sample) for sample in (False, True))

    def positions(report: CopyReport) -> str:
        return ", ".join(f"{name}: {count}" for name, count in report.positions.items()) or "none"

    readme = README.format(
        parameters=model.num_parameters(),
        prompts=len(prompts),
        greedy=greedy,
        sampled=sampled,
        greedy_positions=positions(greedy),
        sampled_positions=positions(sampled),
        choice=choice_summary(model, tokenizer, prompts),
        made=made,
        genres=", ".join(GUM_GENRES),
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")
    write_checksums(folder)
    print(f"greedy  {greedy}\nsampled {sampled}", flush=True)


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    tokenizer, mixture, prompts = prepare(options)
    model = make_model(len(tokenizer), options.smoke)
    print(f"{model.num_parameters()} parameters", flush=True)

    def report(when: str) -> None:
        greedy: CopyReport = measure(model, tokenizer, prompts, sample=False)
        sampled: CopyReport = measure(model, tokenizer, prompts, sample=True)
        print(f"== {when}\ngreedy  {greedy}\nsampled {sampled}", flush=True)
        for prompt, one, other in list(zip(prompts, greedy.outputs, sampled.outputs, strict=True))[:4]:
            print(f"  {prompt}\n    greedy  {one}\n    sampled {other}", flush=True)
        if options.checkpoints:
            save_latest(model, tokenizer, options.checkpoints)

    seconds = 1.0 if options.smoke else options.minutes * 60
    steps = train(model, mixture, seconds, options.rate, options.every, report)
    options.out.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, options.out)
    made = MADE.format(minutes=seconds / 60, steps=steps, seed=options.seed)
    finish(options.out, prompts, made=made, seed=options.seed)


if __name__ == "__main__":
    main()
