"""Does a second judge notice an over-trained run, before its own gain has halved?

    python benchmarks/over_training.py --second SECOND.yaml [--times 10] [--eval_steps 5] [--seeds 0 1 2]
    python benchmarks/over_training.py --only neutrality --kl_coef 0 [--learning_rate 1.5e-4] [...]
    python benchmarks/over_training.py --log FOLDER/log.jsonl

The bundled job with `--times` its rollouts, and a reward that it does not see: a reward file with judges of other data
(benchmarks/second_judges.py says how they are made), or with text rewards alone; with `--only` one of the two bundled
judges is the reward, and the other the one that training does not see. Prints both rewards of the held-out
prompts along the run, each the mean of three evaluations, and three steps: where the second judge's gain over
the start was highest, where the alarm `held_out_reward` was first raised, and where that gain had halved. With --log
it reads a run that is there. Leaves out: whether the second judge is right.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trl_rewards_plugin import MultiClassifierReward, Seq2SeqPPO
from trl_rewards_plugin.charts.series import moving_average
from trl_rewards_plugin.ppo.monitoring.alarms import find_held_out_alarm
from trl_rewards_plugin.recipes.run_presets import get_preset
from trl_rewards_plugin.rewards import Reward

SMOOTHED = 3
ROWS = 10


def bundled_judges(only: str) -> dict[str, Reward]:
    """`only`, a part of the preset tiny, as the reward, and the other part as the one that training does not see."""
    parts = {part.name: part for part in MultiClassifierReward.from_preset("tiny").rewards}
    return {"reward": parts.pop(only), "held_out_reward": next(iter(parts.values()))}


def train(times: float, eval_steps: int, **settings: Any) -> list[dict[str, Any]]:
    """The log of the bundled job, `times` as long, measured before the first rollout and after every `eval_steps`."""
    epochs = times * get_preset("tiny").config["num_train_epochs"]
    recipe = Seq2SeqPPO.from_preset(
        "tiny", num_train_epochs=epochs, eval_on_start=True, eval_strategy="steps", eval_steps=eval_steps,
        overwrite=True, disable_tqdm=True, **settings,
    )  # fmt: skip
    return recipe.run().trainer.state.log_history


def find_steps(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """The steps of the second judge's best, of the first alarm, and of half its gain; None where there is none."""
    steps = [row["step"] for row in evaluations]
    judged = moving_average(np.array([row["eval_held_out_reward"] for row in evaluations]), SMOOTHED)
    gain = judged - judged[0]
    best = int(gain.argmax())
    halved = [step for step, value in zip(steps[best:], gain[best:], strict=True) if value < gain[best] / 2]
    alarms = [step for count, step in enumerate(steps, 1) if find_held_out_alarm(evaluations[:count], {})]
    return {"best": steps[best], "alarm": next(iter(alarms), None), "halved": next(iter(halved), None)}


def show(log: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table and the steps."""
    evaluations = [row for row in log if "eval_held_out_reward" in row]
    columns = ("eval_reward", "eval_held_out_reward", "eval_kl")
    means = {name: moving_average(np.array([row[name] for row in evaluations]), SMOOTHED) for name in columns}
    print(f"{'step':>6}{'reward':>10}{'second':>10}{'KL':>8}")
    for row in np.unique(np.linspace(0, len(evaluations) - 1, ROWS).round().astype(int)):
        first, second, kl = (means[name][row] for name in columns)
        print(f"{evaluations[row]['step']:>6}{first:>10.3f}{second:>10.3f}{kl:>8.2f}")
    found = find_steps(evaluations)
    print(", ".join(f"{name}: {'never' if step is None else f'step {step}'}" for name, step in found.items()))
    if found["halved"] is not None:
        caught = found["alarm"] is not None and found["alarm"] < found["halved"]
        print("caught before the gain had halved" if caught else "not caught before the gain had halved")


def main() -> None:
    """Trains or reads, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--second", help="name or file of a reward that the bundled job does not see")
    parser.add_argument("--only", choices=("acceptability", "neutrality"), help="the one bundled judge to train for")
    parser.add_argument("--kl_coef", type=float, default=0.05)
    parser.add_argument("--learning_rate", type=float, default=1.5e-4)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--eval_steps", type=int, default=5)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", default="runs/over-trained", help="the start of each run's folder")
    parser.add_argument("--log", type=Path, help="log.jsonl of a run with a held_out_reward, instead of training")
    arguments = parser.parse_args()
    if sum(given is not None for given in (arguments.log, arguments.second, arguments.only)) != 1:
        parser.error("give --second, --only, or --log of a run")
    if arguments.log is not None:
        show([json.loads(line) for line in arguments.log.read_text(encoding="utf-8").splitlines()])
        return
    for seed in arguments.seeds:
        print(f"seed {seed}")
        judges = bundled_judges(arguments.only) if arguments.only else {"held_out_reward": arguments.second}
        how = {name: getattr(arguments, name) for name in ("times", "eval_steps", "kl_coef", "learning_rate")}
        show(train(**how, seed=seed, output_dir=f"{arguments.output}-seed{seed}", **judges))


if __name__ == "__main__":
    main()
