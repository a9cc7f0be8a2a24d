"""Does a second pair of judges, which training never saw, see the gain too?

    python benchmarks/second_judges.py runs/tiny-seed0 [RUN ...] --acceptability FOLDER --sentiment FOLDER

The judges are made by `examples/assets/train_judge.py` with another seed and the other half of the data. Reads each
run's completions.parquet, scores the sampled outputs before and after, and prints the paired gain of
1.0 x acceptability + 0.5 x neutrality with its bootstrap interval. Leaves out: training either judges or policies.
"""

import argparse
from pathlib import Path

import pyarrow.parquet

from trl_rewards_plugin import ClassifierReward, MultiClassifierReward
from trl_rewards_plugin.metrics.paired_gain import paired_bootstrap


def main() -> None:
    """Prints one line a run and component."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--acceptability", required=True, help="folder of the second acceptability judge")
    parser.add_argument("--sentiment", required=True, help="folder of the second sentiment judge")
    arguments = parser.parse_args()
    reward = MultiClassifierReward(
        [
            ClassifierReward(arguments.acceptability, label="acceptable", name="acceptability"),
            ClassifierReward(arguments.sentiment, label="neutral", name="neutrality"),
        ],
        weights=[1.0, 0.5],
    )
    print(f"{'run':<28}{'':<15}{'before':>9}{'after':>9}{'gain':>9}  95 % interval")
    for run in arguments.runs:
        rows = pyarrow.parquet.read_table(run / "completions.parquet").to_pydict()
        before, after = reward.score(rows["before"]), reward.score(rows["after"])
        sides = {"reward": (before.total, after.total)}
        sides |= {name: (before.components[name], after.components[name]) for name in before.components}
        for name, (left, right) in sides.items():
            gain, (low, high) = paired_bootstrap(left.numpy(), right.numpy())
            means = f"{left.mean().item():>9.3f}{right.mean().item():>9.3f}"
            print(f"{run.name:<28}{name:<15}{means}{gain:>+9.3f}  [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
