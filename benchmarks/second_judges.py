"""Do other judges, which training never saw, see the gain too: a teacher, or a second pair of small ones?

    python benchmarks/second_judges.py runs/tiny-seed0 [RUN ...] --acceptability FOLDER --sentiment FOLDER

The teachers are made by `examples/assets/train_teacher.py`; on a small encoder, with another seed and half of the
data, it makes a second pair of small judges. Reads each run's completions.parquet and prints, of the sampled and of
the greedy outputs, the paired gain with its bootstrap interval: of 1.0 x acceptability + 0.5 x neutrality, of the
two logits, and of the share of outputs that are called acceptable or neutral; beside them, what the sources' own
first sentences get. A run keeps one sample of each prompt; of 96 prompts, a share's gain has a standard error of 5
points, so `--samples 64` draws as many of each prompt from the starting and the trained model. Leaves out: training
either judges or policies.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet
import torch

from trl_rewards_plugin import ClassifierReward, MultiClassifierReward, Seq2SeqPPOConfig
from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.metrics.paired_gain import paired_bootstrap
from trl_rewards_plugin.ppo.decoding import decode_prompts
from trl_rewards_plugin.ppo.policy.load_policy import load_policy
from trl_rewards_plugin.recipes.before_after import split_sentences
from trl_rewards_plugin.runs.public_names import located
from trl_rewards_plugin.runs.read import read_settings

SIDES = {"sampled": ("before", "after"), "greedy": ("before_greedy", "after_greedy")}


def make_judges(acceptability: str, sentiment: str) -> MultiClassifierReward:
    """Both judges' logits and probabilities, from one forward pass each."""
    parts = [
        ClassifierReward(folder, label=label, name=name, score_type=score_type)
        for folder, label, names in (
            (acceptability, "acceptable", ("acceptability", "acceptable")),
            (sentiment, "neutral", ("neutrality", "neutral")),
        )
        for name, score_type in zip(names, ("logit", "probability"), strict=True)
    ]
    return MultiClassifierReward(parts)


def opinions(judges: MultiClassifierReward, texts: Sequence[str], samples: int = 1) -> dict[str, torch.Tensor]:
    """Name -> (prompts,): the default job's reward, its two logits, and the share whose label is the likelier one.

    Args:
        texts: (prompts x samples), the samples of one prompt side by side.
    """
    scores = judges.score(texts).components
    reward = scores["acceptability"] + 0.5 * scores["neutrality"]
    logits = {name: scores[name] for name in ("acceptability", "neutrality")}
    shares = {name: (scores[name] > 0.5).float() for name in ("acceptable", "neutral")}
    return {name: each.view(-1, samples).mean(1) for name, each in {"reward": reward, **logits, **shares}.items()}


def draw(run: Path, prompts: Sequence[str], samples: int) -> list[list[str]]:
    """Texts (prompts x samples) of the model that the run started from, and of the one it trained."""
    config = located(read_settings(run), run)
    known = {field.name for field in fields(Seq2SeqPPOConfig)}
    args = Seq2SeqPPOConfig(output_dir=str(run), **{key: value for key, value in config.items() if key in known})
    drawn = []
    for name in (resolve(config["model"]), run):
        model, tokenizer = load_policy(str(name), None)
        drawn.append(decode_prompts(model.eval(), tokenizer, prompts, args, num_samples=samples).texts)
    return drawn


def main() -> None:
    """Prints one line a run, way of decoding and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--acceptability", required=True, help="folder of the other acceptability judge")
    parser.add_argument("--sentiment", required=True, help="folder of the other sentiment judge")
    parser.add_argument("--samples", type=int, default=1, help="of each prompt; 1: the one that the run kept")
    arguments = parser.parse_args()
    judges = make_judges(arguments.acceptability, arguments.sentiment)
    print(f"{'run':<18}{'':<9}{'':<15}{'sources':>9}{'before':>9}{'after':>9}{'gain':>9}  95 % interval")
    for run in arguments.runs:
        rows = pyarrow.parquet.read_table(run / "completions.parquet").to_pydict()
        sources = opinions(judges, [split_sentences(source)[0] for source in rows["source"]])
        for decoding, sides in SIDES.items():
            n = arguments.samples if decoding == "sampled" else 1
            texts = draw(run, rows["prompt"], n) if n > 1 else [rows[side] for side in sides]
            before, after = (opinions(judges, each, n) for each in texts)
            for name, values in before.items():
                gain, (low, high) = paired_bootstrap(values.numpy(), after[name].numpy())
                means = "".join(f"{each[name].mean().item():>9.3f}" for each in (sources, before, after))
                interval = "none: all alike" if low is None else f"[{low:+.3f}, {high:+.3f}]"
                print(f"{run.name:<17} {decoding:<9}{name:<15}{means}{gain:>+9.3f}  {interval}")


if __name__ == "__main__":
    main()
