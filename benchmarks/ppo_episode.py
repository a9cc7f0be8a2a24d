"""Seconds an episode, split into generation, reward and update, beside the article's loop on TRL 0.11.4.

    python benchmarks/ppo_episode.py --legacy ENVIRONMENT --out episode
    python benchmarks/ppo_episode.py --batch 32 --mini 16 --freeze_encoder --out frozen

Models of the article's size with random weights, prompts of about 256 tokens, exactly 50 new tokens, 4 epochs. One
batch of ours and one of the article's loop take turns, so that both meet the same noise; the first of each is a
warm-up. `cpu` is the time that the process had a CPU: what counts where others use the machine too, if only one thread
computes (OMP_NUM_THREADS=1), since threads that wait for each other count as busy. With `--legacy` the article's loop
runs in an environment of its own (made by legacy.sh where the folder is not there yet).
Leaves out: whether anything is learnt (time_to_reward.py).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import real_size
import torch
from article_process import ArticleLoop, model_and_tokens
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from trl_rewards_plugin import Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.ppo import trainer as trainer_module

NEW_TOKENS, EPOCHS = 50, 4
PARTS = ("generation", "reward", "update")


def article_settings(folder: Path, prompts: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """What article_loop.py is told: the same work."""
    judges = [folder / name for name in real_size.CLASSIFIERS]
    return {
        "seed": args.seed,
        "policy": model_and_tokens(folder / "policy"),
        "judges": [{**model_and_tokens(judge), "label": real_size.LABEL} for judge in judges],
        "weights": real_size.WEIGHTS,
        "prompts": prompts,
        "generation": {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS},
        "ppo": {"batch_size": args.batch, "mini_batch_size": args.mini, "ppo_epochs": EPOCHS},
    }


class Clock:
    """Seconds spent in named parts."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Seconds, the device's queue included."""
        return real_size.now(self.device)

    def timed(self, part: str, work: Callable) -> Callable:
        """`work`, its time counted."""

        def timed_work(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds[part] += self.now() - began

        return timed_work


class TakeTurns(TrainerCallback):
    """Keeps the times of every rollout, and lets the article's loop do a batch after each."""

    def __init__(self, clock: Clock, other: ArticleLoop | None):
        self.clock, self.other = clock, other
        self.ours: list[dict[str, float]] = []
        self.theirs: list[dict[str, float]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Sets the clock to zero."""
        self.clock.seconds.clear()
        self.began, self.cpu_began = self.clock.now(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Reads the clock; the update is what is neither generation nor reward."""
        total = self.clock.now() - self.began
        seconds = dict(self.clock.seconds)
        cpu = time.process_time() - self.cpu_began
        self.ours.append({**seconds, "update": total - sum(seconds.values()), "cpu": cpu})
        if self.other is not None:
            self.theirs.append(self.other.batch())


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Trains for a few rollouts; the times of each of ours and of the article's loop."""
    real_size.save_models(folder)
    prompts = real_size.make_prompts(args.batch * (args.repeats + 1), args.seed)
    device = torch.device("cpu" if args.cpu else "cuda")
    config = Seq2SeqPPOConfig(
        output_dir=str(folder / "run"),
        learning_rate=1.41e-5,
        per_device_train_batch_size=args.batch,
        num_mini_batches=args.batch // args.mini,
        num_ppo_epochs=EPOCHS,
        response_length=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS - 1,  # EOS may be the last of them
        max_unended_share=None,  # by construction all are cut
        max_grad_norm=0.0,  # TRL 0.11.4 clips no gradient either
        freeze_encoder=args.freeze_encoder,
        max_steps=args.repeats + 1,
        seed=args.seed,
        bf16=args.bf16,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=args.cpu,
        cuda_graphs=args.cuda_graphs,
    )
    clock = Clock(device)
    other = None
    if args.legacy:
        other = ArticleLoop(args.legacy, folder, article_settings(folder, prompts, args))
    turns = TakeTurns(clock, other)
    trainer = Seq2SeqPPOTrainer(
        str(folder / "policy"),
        real_size.make_reward(folder),
        config,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=real_size.make_tokenizer(),
        callbacks=[turns],
    )
    trainer.remove_callback(PrinterCallback)
    for name in ("encode_prompts", "sample_responses"):
        setattr(trainer_module, name, clock.timed("generation", getattr(trainer_module, name)))
    trainer._score = clock.timed("reward", trainer._score)  # type: ignore[method-assign]
    trainer.train()
    if other is not None:
        other.close()
    found = {"ours": turns.ours[1:], "article": turns.theirs[1:]}
    return {name: rows for name, rows in found.items() if rows}


def summary(runs: dict[str, list[dict[str, float]]], batch: int) -> dict[str, dict[str, float]]:
    """Median seconds an episode, by part and in all."""
    result = {}
    for name, rows in runs.items():
        parts = {part: statistics.median(row[part] for row in rows) / batch for part in PARTS}
        total = statistics.median(sum(row[part] for part in PARTS) for row in rows) / batch
        result[name] = {**parts, "total": total, "cpu": statistics.median(row["cpu"] for row in rows) / batch}
    return result


def table(found: dict[str, dict[str, float]]) -> str:
    """Rows of seconds, and a row of ratios."""
    names = (*PARTS, "total", "cpu")
    lines = [f"{'seconds an episode':<20}" + "".join(f"{name:>12}" for name in names)]
    lines += [f"{who:<20}" + "".join(f"{row[name]:>12.3f}" for name in names) for who, row in found.items()]
    if "article" in found:
        ratios = (found["article"][name] / found["ours"][name] for name in names)
        lines.append(f"{'times as fast':<20}" + "".join(f"{ratio:>12.2f}" for ratio in ratios))
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="prompts a rollout")
    parser.add_argument("--mini", type=int, default=4, help="prompts a mini-batch")
    parser.add_argument("--repeats", type=int, default=3, help="rollouts that are timed")
    parser.add_argument("--freeze_encoder", action="store_true", help="of ours; the article's loop cannot")
    parser.add_argument("--bf16", action="store_true", default=None, help="of ours, on a GPU")
    parser.add_argument("--gpu", dest="cpu", action="store_false", help="ours and the article's loop on the GPU")
    parser.add_argument("--no_cuda_graphs", dest="cuda_graphs", action="store_false", default=None)
    parser.add_argument("--legacy", type=Path, help="folder of an environment with TRL 0.11.4, to run that too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("ppo_episode"), help="folder of the JSON")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(Path(folder), args)
    found = summary(runs, args.batch)
    print(f"batch {args.batch}, mini-batch {args.mini}, {EPOCHS} epochs, freeze_encoder={args.freeze_encoder}")
    print(table(found))
    record = {
        "machine": real_size.machine("cpu" if args.cpu else "cuda"),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "seconds_an_episode": found,
        "runs": runs,
        "peak_memory_gib": real_size.peak_memory_gib(),
    }
    (args.out / "ppo_episode.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
