"""Teaches the tiny T5 to copy carelessly: some of its sampled sentences get a word doubled, swapped or lost.

A model that copies perfectly leaves reinforcement learning nothing to mend. After this second stage the likeliest
output is still a clean sentence, and a sampled one often has a slip that a reader, or a judge of grammar, notices.
Starts from the model that train_tiny_t5.py wrote, and uses its documents, tokenizer and mixture of passages.
Leaves out: PPO, and slips inside a word.

    OMP_NUM_THREADS=1 python examples/assets/add_slips.py --model FOLDER --documents DATA/documents --out FOLDER
"""

import argparse
import random
from pathlib import Path

import torch
from corrupt import double, drop, swap_adjacent
from train_tiny_t5 import CURRICULUM, Mixture, Piece, copy_loss_of, finish, prepare, save
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

SLIPS = {double: 0.45, swap_adjacent: 0.4, drop: 0.15}
SLIPS_A_SENTENCE = (0, 1, 1, 2)  # drawn with equal chance: a quarter of the targets stay clean


def slip(pieces: list[Piece], rng: random.Random, starts: set[Piece]) -> list[Piece]:
    """A sentence with none, one or two slips between its words; `starts` are the pieces that begin a word."""
    words: list[list[Piece]] = []
    for piece in pieces:
        if piece in starts or not words:
            words.append([])
        words[-1].append(piece)
    for _ in range(rng.choice(SLIPS_A_SENTENCE)):
        (spoil,) = rng.choices(list(SLIPS), list(SLIPS.values()))
        words = spoil(words, rng, ()) if len(words) > 2 else words
    return [piece for word in words for piece in word]


def word_starts(tokenizer: PreTrainedTokenizerBase) -> set[Piece]:
    """Ids of the pieces that begin a word."""
    return {index for piece, index in tokenizer.get_vocab().items() if piece.startswith("\u2581")}


def train(model, mixture: Mixture, starts: set[Piece], steps: int, peak: float) -> None:
    """Fine-tunes on slipped targets; the learning rate falls linearly to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
    _, kinds, pieces = CURRICULUM[-1]
    queue, losses = [], []
    for step in range(1, steps + 1):
        queue = queue or mixture.batches(kinds, pieces)
        batch = queue.pop()
        targets = [slip(sentence, mixture.rng, starts) for passage in batch for sentence in passage]
        loss, plain = copy_loss_of(model, batch, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(plain)
        if step % 25 == 0:
            print(f"step {step} of {steps} loss {sum(losses) / len(losses):.3f}", flush=True)
            losses = []


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder that train_tiny_t5.py wrote")
    parser.add_argument("--documents", type=Path, required=True, help="folder of ewt.jsonl and gum.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--steps", type=int, default=200, help="of training (default %(default)s)")
    parser.add_argument("--rate", type=float, default=5e-4, help="peak learning rate (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="two steps on little data, to test the script")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    tokenizer, mixture, prompts = prepare(options, options.model)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model, dtype=torch.float32)
    train(model, mixture, word_starts(tokenizer), 2 if options.smoke else options.steps, options.rate)
    options.out.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, options.out)
    finish(options.out, prompts, seed=options.seed, slips=f"{options.steps} steps at {options.rate:g}")


if __name__ == "__main__":
    main()
