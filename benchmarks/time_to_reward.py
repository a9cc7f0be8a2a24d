"""Seconds and episodes of training until the held-out reward has risen by a given amount, beside the article's loop.

    python benchmarks/time_to_reward.py --legacy ENVIRONMENT --out time_to_reward

The bundled tiny models and prompts. Ours has the settings of `trl-rewards train` but for `OURS`: smaller rollouts and
a higher learning rate, which get there sooner (and are not what ends best). Both loops start from the same model,
learn from the same prompts and the same two judges, and are measured alike: four answers to each held-out prompt,
sampled with one seed, after every `--every` episodes; measuring does not count as training. The article's loop runs
as written (TRL 0.11.4, its defaults, batches of 8) at each of `--learning_rates`, until it is there or has trained
`--patience` times as long as ours took. Leaves out: what the judges' preference is worth.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import real_size
import torch
from article_process import ArticleLoop, model_and_tokens
from transformers import AutoModelForSeq2SeqLM, PrinterCallback, TrainerCallback

from trl_rewards_plugin import MultiClassifierReward, Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.decoding import decode_prompts
from trl_rewards_plugin.recipes.data import load_run_data
from trl_rewards_plugin.recipes.run_presets import get_preset

OURS = {"per_device_train_batch_size": 16, "learning_rate": 1e-3}
SAMPLES = 4
JUDGES = {"acceptability-judge": "acceptable", "sentiment-judge": "neutral"}
WEIGHTS = [1.0, 0.5]


class HeldOut:
    """Measures a policy: the mean reward of its answers to the held-out prompts."""

    def __init__(self, trainer: Seq2SeqPPOTrainer, reward: MultiClassifierReward, prompts: list[str]):
        self.trainer, self.reward, self.prompts = trainer, reward, prompts

    def __call__(self, policy: Any) -> float:
        decoded = decode_prompts(
            policy, self.trainer.processing_class, self.prompts, self.trainer.args, num_samples=SAMPLES
        )
        return self.reward.score(decoded.texts).total.mean().item()


class Watch(TrainerCallback):
    """Measures after every so many episodes, and stops where the goal is reached."""

    def __init__(self, goal: float, every: int):
        self.goal, self.every = goal, every
        self.curve: list[tuple[int, float, float]] = []  # episodes, seconds of training, reward
        self.seconds = 0.0
        self.measure: HeldOut | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Starts the clock: what the first rollout needs counts."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stops the clock, measures, goes on."""
        self.seconds += time.perf_counter() - self.began
        episodes = state.global_step * args.rollout_batch_size
        if episodes % self.every < args.rollout_batch_size:
            assert self.measure is not None
            reward = self.measure(self.measure.trainer.policy_model)
            self.curve.append((episodes, self.seconds, reward))
            control.should_training_stop = reward >= self.goal
        self.began = time.perf_counter()


def train_ours(gain: float, every: int, seed: int, folder: Path) -> tuple[dict[str, Any], HeldOut, float]:
    """Our trainer; its curve, the measure, and the goal."""
    preset = get_preset("tiny")
    data = load_run_data(preset.dataset, preset.eval_dataset)
    reward = MultiClassifierReward.from_preset("tiny")
    settings = {**preset.config, **OURS, "output_dir": str(folder / "ours"), "seed": seed, "save_strategy": "no"}
    config = Seq2SeqPPOConfig(**settings, report_to="none", disable_tqdm=True, use_cpu=True)
    watch = Watch(torch.inf, every)
    trainer = Seq2SeqPPOTrainer(
        str(asset_path("tiny-t5")), reward, config, train_dataset=data.train, callbacks=[watch]
    )
    trainer.remove_callback(PrinterCallback)
    watch.measure = HeldOut(trainer, reward, list(data.held_out["prompt"]))
    before = watch.measure(trainer.policy_model)
    watch.goal = before + gain
    trainer.train()
    return {"before": before, "curve": watch.curve}, watch.measure, watch.goal


def train_article(rate: float, goal: float, limit: float, every: int, seed: int, args: Any) -> dict[str, Any]:
    """The article's loop; its curve."""
    environment, measure = args
    batch = 8
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "seed": seed,
            "policy": model_and_tokens(asset_path("tiny-t5")),
            "judges": [{**model_and_tokens(asset_path(judge)), "label": label} for judge, label in JUDGES.items()],
            "weights": WEIGHTS,
            "prompts": list(measure.trainer.train_dataset["prompt"]),
            "generation": {"max_new_tokens": measure.trainer.args.response_length},
            "ppo": {"learning_rate": rate, "batch_size": batch, "mini_batch_size": 4, "ppo_epochs": 4},
        }
        loop = ArticleLoop(environment, folder, settings)
        curve: list[tuple[int, float, float]] = []
        episodes, seconds = 0, 0.0
        while not curve or (seconds < limit and curve[-1][2] < goal):
            result = loop.batch()
            seconds += result["generation"] + result["reward"] + result["update"]
            episodes += batch
            if episodes % every == 0:
                loop.save(folder / "now")
                policy = AutoModelForSeq2SeqLM.from_pretrained(folder / "now")
                make_deterministic(policy)
                curve.append((episodes, seconds, measure(policy)))
        loop.close()
    return {"curve": curve}


def reached(curve: list[tuple[int, float, float]], goal: float) -> tuple[int, float] | None:
    """Episodes and seconds until the goal; None where it was not reached."""
    return next(((episodes, seconds) for episodes, seconds, reward in curve if reward >= goal), None)


def line(name: str, run: dict[str, Any], goal: float, ours: float | None) -> str:
    """A row of the table."""
    there = reached(run["curve"], goal)
    episodes, seconds, reward = run["curve"][-1]
    if there is None:
        ratio = "" if ours is None else f"more than {seconds / ours:.1f}"
        return f"{name:<28}{'not by ' + str(episodes):>14}{seconds:>10.0f}{reward:>10.3f}  {ratio}"
    ratio = "" if ours is None else f"{there[1] / ours:.1f}"
    return f"{name:<28}{there[0]:>14}{there[1]:>10.0f}{reward:>10.3f}  {ratio}"


def main() -> None:
    """Trains, prints the table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gain", type=float, default=0.3, help="rise of the held-out reward to reach")
    parser.add_argument("--every", type=int, default=16, help="episodes between two measurements")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[1.41e-5, 1.5e-4], help="of the article's")
    parser.add_argument("--patience", type=float, default=20.0, help="times our seconds that the article's loop gets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--legacy", type=Path, help="folder of an environment with TRL 0.11.4, to run that too")
    parser.add_argument("--out", type=Path, default=Path("time_to_reward"), help="folder of the JSON")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"machine": real_size.machine(), "gain": args.gain, "runs": []}
    print(f"{'until +' + str(args.gain):<28}{'episodes':>14}{'seconds':>10}{'reward':>10}  times our seconds")
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as name:
            ours, measure, goal = train_ours(args.gain, args.every, seed, Path(name))
            there = reached(ours["curve"], goal)
            seconds = there[1] if there else None
            print(line(f"ours, seed {seed}", ours, goal, seconds), flush=True)
            record["runs"].append({"loop": "ours", "seed": seed, "goal": goal, **ours})
            limit = args.patience * (seconds or ours["curve"][-1][1])
            for rate in args.learning_rates if args.legacy else ():
                run = train_article(rate, goal, limit, args.every, seed, (args.legacy, measure))
                print(line(f"article's, lr {rate:g}, seed {seed}", run, goal, seconds), flush=True)
                record["runs"].append({"loop": "article", "seed": seed, "goal": goal, "learning_rate": rate, **run})
    (args.out / "time_to_reward.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
