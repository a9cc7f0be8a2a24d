"""Teaches the tiny T5 to trail off: after many of its sentences comes a stray "like", "so" or "well".

A model that copies perfectly leaves reinforcement learning nothing to mend. After this second stage most outputs,
greedy or sampled, end in a filler word that a judge of grammar notices; PPO can take it away.
Starts from the model that train_tiny_t5.py wrote, and uses its documents, tokenizer and mixture of passages.
Leaves out: PPO, and any other kind of slip.

    OMP_NUM_THREADS=1 python examples/assets/add_fillers.py --model FOLDER --documents DATA/documents --out FOLDER
"""

import argparse
import random
from pathlib import Path

import torch
from copy_measures import generate
from train_tiny_t5 import CURRICULUM, Mixture, Piece, copy_loss_of, finish, prepare, save
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase, T5ForConditionalGeneration

MADE = """{before}

Then, so that PPO has something to mend, {steps} steps in which {wanted:.0%} of the targets trail off with a filler
word ({fillers}):

    OMP_NUM_THREADS=1 python examples/assets/add_fillers.py \\
        --model COPIER --documents DATA/documents --out FOLDER --steps {steps} --rate {rate:g} --seed {seed}

{share:.0%} of the outputs sampled at temperature 1 hold a filler that the passage does not; {greedy:.0%} of the greedy
ones do."""

FILLERS = ("like", "so", "well")
FILLER_SHARE = 0.72  # of the targets


def trail_off(pieces: list[Piece], rng: random.Random, fillers: list[list[Piece]]) -> list[Piece]:
    """A sentence, and in FILLER_SHARE of the draws one of the fillers after it."""
    return [*pieces, *rng.choice(fillers)] if rng.random() < FILLER_SHARE else pieces


def story_so_far(model: Path) -> str:
    """How the model of a folder was made, from its README."""
    return (
        (model / "README.md")
        .read_text(encoding="utf-8")
        .split("## How it was made\n\n")[1]
        .split("\n\nTraining text")[0]
    )


def filler_share(outputs: list[str], prompts: list[str]) -> float:
    """Share of outputs that hold a filler more often than their passage does."""
    pairs = [(text.lower().split(), prompt.lower().split()) for text, prompt in zip(outputs, prompts, strict=True)]
    return sum(any(text.count(word) > prompt.count(word) for word in FILLERS) for text, prompt in pairs) / len(pairs)


def train(
    model: T5ForConditionalGeneration,
    mixture: Mixture,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    peak: float,
) -> None:
    """Fine-tunes on targets with fillers; the learning rate falls linearly to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
    _, kinds, pieces = CURRICULUM[-1]
    fillers = [tokenizer(filler, add_special_tokens=False)["input_ids"] for filler in FILLERS]
    queue, losses = [], []
    for step in range(1, steps + 1):
        queue = queue or mixture.batches(kinds, pieces)
        batch = queue.pop()
        targets = [trail_off(sentence, mixture.rng, fillers) for passage in batch for sentence in passage]
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
    parser.add_argument("--steps", type=int, default=150, help="of training (default %(default)s)")
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
    train(model, mixture, tokenizer, 2 if options.smoke else options.steps, options.rate)
    options.out.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, options.out)
    torch.manual_seed(options.seed)
    shares = {
        sample: filler_share(generate(model, tokenizer, prompts, sample=sample), prompts) for sample in (True, False)
    }
    made = MADE.format(
        before=story_so_far(options.model),
        fillers=", ".join(FILLERS),
        wanted=FILLER_SHARE,
        steps=options.steps,
        rate=options.rate,
        seed=options.seed,
        share=shares[True],
        greedy=shares[False],
    )
    finish(options.out, prompts, made=made, seed=options.seed)


if __name__ == "__main__":
    main()
