"""What a run checks before it loads a model, and its plan: rollouts, updates, an estimate of minutes."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig, count_rollouts
from trl_rewards_plugin.preset_table import ENDINGS
from trl_rewards_plugin.recipes.before_after import BEST_OF, Evaluator, WithHeldOutReward
from trl_rewards_plugin.recipes.best_of_n import as_scorer
from trl_rewards_plugin.recipes.data import MUCH_CUT, RunData, further_columns
from trl_rewards_plugin.recipes.run_rules import check_installed
from trl_rewards_plugin.rewards.combining.constraints import slack
from trl_rewards_plugin.rewards.files.dotted_paths import python_file
from trl_rewards_plugin.rewards.files.file_content import preset_content, without_none
from trl_rewards_plugin.runs.layout import CONFIG, checkpoint_step
from trl_rewards_plugin.runs.public_names import NAMED_BY_PLACE, public_name, recorded_name
from trl_rewards_plugin.runs.record import precision
from trl_rewards_plugin.runs.reward_description import describe_reward, formula_of
from trl_rewards_plugin.text import counted, cut_prompts

# Keys of metrics.json and columns of completions.parquet that a component of this name would overwrite.
RESERVED_NAMES = ("reward", "greedy", "greedy_reward", "held_out_reward")
_NUMBER = re.compile(r"\s*[-+]?\d+([.,]\d+)?\s*")


@dataclass(frozen=True)
class RunInputs:
    """Checked inputs: data, a reward with `.score`, and where to resume from."""

    data: RunData
    reward: Any
    checkpoint: Path | None
    held_out_reward: Any = None
    reward_files: Mapping[str, Any] = field(default_factory=dict)  # setting -> content of the copy of its file
    cuts: Mapping[str, Any] = field(default_factory=dict)  # of `RunData.count_cuts`, once there is a tokenizer
    room: int | None = None  # tokens of a prompt that the model has positions for, once it is loaded; None: any number

    @property
    def judge(self) -> Any:
        """What scores before and after: the reward, and the held-out one beside it."""
        return self.reward if self.held_out_reward is None else WithHeldOutReward(self.reward, self.held_out_reward)


def check_trackers(names: Sequence[str]) -> None:
    """Refuses now the trackers in `report_to` that the Trainer would refuse after loading the models."""
    from transformers.integrations import integration_utils as known

    check_installed(names, known.INTEGRATION_TO_CALLBACK, known.get_available_reporting_integrations())


def load_reward(reward: Any) -> Any:
    """The reward with `.score`; one with a moving scale or with a component of a reserved name is refused."""
    scorer = as_scorer(reward)
    if set(getattr(scorer, "state_dict", dict)()) - {"constraints"}:  # score() leaves constraints out
        found = f"normalization='zscore', or constraints within a combination, in {scorer.name}"
        step = "set a fixed mean and scale, or train with Seq2SeqPPOTrainer, which saves the running scale"
        raise InputError("a reward whose scale stays as it is, so that before and after can be compared", found, step)
    for part in describe_reward(scorer):
        if part["name"] in RESERVED_NAMES:
            step = "give the reward another name=..."
            raise InputError(f"a reward not called {', '.join(RESERVED_NAMES)}", repr(part["name"]), step)
    return scorer


def reward_file(given: Any, reward: Any, folder: Path) -> dict[str, Any] | None:
    """The reward file that was `given`, as the run's `folder` keeps it; None for anything else.

    It has the reward's name, and what it names by its path from there. A server's address is this network's: no copy.
    """
    if not isinstance(given, str | Path) or Path(given).suffix.lower() not in ENDINGS:
        return None
    content = preset_content(given)
    entries = content["rewards"]
    if any("url" in entry for entry in entries):
        return None
    named = [{key: recorded_name(entry[key], folder) for key in NAMED_BY_PLACE if key in entry} for entry in entries]
    for entry, names in zip(entries, named, strict=True):
        file, _, function = entry.get("function", "").rpartition(":")
        if file.endswith(".py"):
            names["function"] = f"{recorded_name(python_file(file, Path(given).parent), folder)}:{function}"
    entries = [entry | names for entry, names in zip(entries, named, strict=True)]
    return without_none({**content, "name": reward.name, "rewards": entries})


def reached_targets(reward: Any, means: Mapping[str, float | None]) -> dict[str, Any]:
    """{"targets": {name: target, "mean" and "slack", below 0 where it is missed}}; empty without constraints."""
    targets = {}
    for part in (part for part in describe_reward(reward) if part.get("constraints")):
        target, mean = part["constraints"], means[part["name"]]
        least = None if mean is None else min(slack(mean, end, bound) for end, bound in target.items())
        targets[part["name"]] = {**target, "mean": mean, "slack": least}
    return {"targets": targets} if targets else {}


def plan_lines(model: Any, args: Seq2SeqPPOConfig, inputs: RunInputs) -> dict[str, str]:
    """Label -> text, for `console.format_plan`."""
    data, cuts = inputs.data, inputs.cuts
    rollouts = count_rollouts(args, len(data.train))
    updates = rollouts * args.num_ppo_epochs * args.num_mini_batches
    asked, limit = args.max_prompt_length, cuts["limit"]
    lowered = f"; max_prompt_length {asked} is lowered to {limit}, the model's positions" if limit < asked else ""
    prefix = f"each prefixed with {data.prompt_prefix!r}" if data.prompt_prefix else "without a prefix"
    every = math.ceil(args.save_steps * rollouts) if args.save_steps < 1 else int(args.save_steps)
    kept = f", at most {args.save_total_limit} kept" if args.save_total_limit else ""
    saves = f"every {counted(every, 'rollout')}{kept}" if every < rollouts else "at the end only"
    rates = f"learning rate {args.learning_rate:g}, KL coefficient {args.initial_kl_coef:g}"
    if inputs.checkpoint is not None:  # which brings its own
        rates = "learning rate and KL coefficient of the checkpoint"
    numbers = all(map(_NUMBER.fullmatch, (text.removeprefix(data.prompt_prefix) for text in data.train["prompt"])))
    odd = "; warning: these texts are all numbers: check text_column" if numbers else ""
    plan = {
        "Model": public_name(model),
        "Reward": formula_of(inputs.reward),
        "Prompts": f"{len(data.train)} of {data.train_name}, {prefix}{odd}",
        "Held out": data.eval_name + (f"; warning: {data.warning}" if data.warning else ""),
        "Cut": cut_prompts(cuts) + lowered,
        "Training": f"{rollouts} rollouts of {args.rollout_batch_size} responses, {args.num_ppo_epochs} epochs of "
        f"{args.num_mini_batches} mini-batch{'es' if args.num_mini_batches > 1 else ''} on each: {updates} updates",
        "Settings": f"{rates}, responses of at most {args.response_length} tokens, seed {args.seed}",
        "Saves": saves if args.save_strategy == "steps" else f"save_strategy {args.save_strategy.value}",
        "Precision": precision(args),
        "Folder": str(args.output_dir),
    }
    if inputs.held_out_reward is not None:
        plan["Held-out reward"] = formula_of(inputs.held_out_reward)
    if cuts["cut"] > MUCH_CUT * cuts["prompts"]:
        to = cuts["for_most"] if inputs.room is None else min(cuts["for_most"], inputs.room)
        why = "which cuts at most 10%" if to == cuts["for_most"] else "the model's positions"
        step = "take a model that reads more" if limit == inputs.room else f"raise max_prompt_length to {to}, {why}"
        plan["Warning"] = f"{cuts['cut'] / cuts['prompts']:.0%} of the prompts are cut: {step}, or shorten them"
    if (checkpoint := inputs.checkpoint) is not None:
        run = checkpoint.resolve().parent
        unknown = "" if (run / CONFIG).is_file() else f" without {CONFIG}: its model, reward and data are not compared"
        warning = f"{checkpoint}, of another run{unknown}; its weights, optimizer, learning rate, KL coefficient, log "
        warning += "and count of rollouts are taken over; it may have trained on prompts that are held out here"
        plan["Resume"] = checkpoint.name if run == Path(str(args.output_dir)).resolve() else warning
        schedule = checkpoint / "scheduler.pt"
        goes_on = rollouts > (checkpoint_step(checkpoint.name) or 0)
        if goes_on and schedule.is_file() and not any(torch.load(schedule, weights_only=True)["_last_lr"]):
            ended = "the checkpoint's schedule ended at learning rate 0, which the first further rollout still has"
            plan["Resume"] += f"; {ended}"
    return plan


def estimate_minutes(evaluator: Evaluator, args: Seq2SeqPPOConfig, data: RunData) -> float:
    """Minutes of the whole run, from one rollout that is timed here; its update is assumed to take as long again."""
    size = args.rollout_batch_size
    batch = data.train.select([row // args.num_generations for row in range(size)])
    started = time.perf_counter()
    evaluator.sample_and_score(list(batch["prompt"]), further_columns(batch))
    seconds = time.perf_counter() - started
    # Evaluation: sampled and greedy, before and after, and the samples of the best-of yardstick.
    evaluation = (4 + BEST_OF) * len(data.held_out) / size
    return (2 * count_rollouts(args, len(data.train)) + evaluation) * seconds / 60
