"""Targets in place of weights on the bundled job: does training meet what the default job's weights miss?

    python benchmarks/constraints.py --seeds 0 1 2
    python benchmarks/constraints.py --acceptability 0.3 --words 8 --out_of_reach 30

For each seed it trains the default job, and the same job for neutrality with two targets: a mean acceptability of at
least so much, and a mean length of at most so many words. Last, with the first seed, for an acceptability out of
reach, which has to be reported as missed. Prints the means of held-out prompts, sampled, and what became of each
target; "close" is missed by at most 5 % of it. Leaves out: other objectives; each run's folder has its curves.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from trl_rewards_plugin import LengthReward, MultiClassifierReward, Seq2SeqPPO
from trl_rewards_plugin.rewards.combining.constraints import slack

CLOSE = 0.05


def train(folder: Path, seed: int, job: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The contents of metrics.json of the bundled job with its judges, the number of words, and these settings."""
    parts = [*MultiClassifierReward.from_preset("tiny").rewards, LengthReward(name="words")]
    reward = MultiClassifierReward(parts, **settings)
    changes = {"output_dir": str(folder), "seed": seed, "overwrite": True, "disable_tqdm": True, **job}
    return Seq2SeqPPO.from_preset("tiny", reward=reward, echo=lambda text: None, **changes).run().metrics


def verdict(mean: float, end: str, bound: float) -> str:
    """What became of a target."""
    left = slack(mean, end, bound)
    return "met" if left >= 0 else "close" if -left <= CLOSE * abs(bound) else "missed"


def main() -> None:
    """Prints one line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--acceptability", type=float, default=0.3, help="least mean")
    parser.add_argument("--words", type=float, default=8.0, help="greatest mean")
    parser.add_argument("--out_of_reach", type=float, default=30.0, help="least mean acceptability of the last run")
    parser.add_argument("--folder", type=Path, default=Path("runs/constraints"))
    arguments = parser.parse_args()
    targets = {"acceptability": {"min": arguments.acceptability}, "words": {"max": arguments.words}}
    runs = []
    for seed in arguments.seeds:
        weights = {"acceptability": 1.0, "neutrality": 0.5, "words": 0.0}
        runs += [("weights", seed, {"weights": weights}), ("targets", seed, {"constraints": targets})]
    beyond = {**targets, "acceptability": {"min": arguments.out_of_reach}}
    runs.append(("out of reach", arguments.seeds[0], {"constraints": beyond}))
    print(f"{'run':<13}{'seed':>4}{'acceptability':>23}{'words':>16}{'neutrality':>12}{'KL':>7}", flush=True)
    for name, seed, settings in runs:
        metrics = train(arguments.folder / f"{name.replace(' ', '_')}-{seed}", seed, **settings)
        cells = []
        for part, [(end, bound)] in (
            (part, target.items()) for part, target in settings.get("constraints", targets).items()
        ):
            cells.append(f"{metrics['after'][part]:.3f} {verdict(metrics['after'][part], end, bound)}")
        print(
            f"{name:<13}{seed:>4}{cells[0]:>23}{cells[1]:>16}{metrics['after']['neutrality']:>12.3f}{metrics['kl']:>7.2f}",
            flush=True,
        )
        if "targets" in metrics:
            print(json.dumps(metrics["targets"]))


if __name__ == "__main__":
    main()
