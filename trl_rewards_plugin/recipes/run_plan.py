"""What a run is about to do: rollouts, updates, the plan for the reader and an estimate of its minutes.

Leaves out: printing.
"""

from __future__ import annotations

import math
import time
from typing import Any

from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.recipes.before_after import BEST_OF, Evaluator, Scored, score_texts
from trl_rewards_plugin.recipes.console import format_reward
from trl_rewards_plugin.recipes.data import further_columns
from trl_rewards_plugin.recipes.run_inputs import RunInputs
from trl_rewards_plugin.runs.environment import precision
from trl_rewards_plugin.runs.public_names import public_name
from trl_rewards_plugin.runs.reward_description import aggregation_of, describe_reward


def count_rollouts(args: Seq2SeqPPOConfig, prompts: int) -> int:
    """Rollouts of training on this many prompts."""
    if args.max_steps > 0:
        return int(args.max_steps)
    episodes = args.total_episodes or args.num_train_epochs * prompts * args.num_generations
    return math.ceil(episodes / args.rollout_batch_size)


def plan_lines(model: Any, args: Seq2SeqPPOConfig, inputs: RunInputs) -> dict[str, str]:
    """Label -> text, for `console.format_plan`."""
    data = inputs.data
    rollouts = count_rollouts(args, len(data.train))
    updates = rollouts * args.num_ppo_epochs * args.num_mini_batches
    plan = {
        "Model": public_name(model),
        "Reward": format_reward(describe_reward(inputs.reward), aggregation_of(inputs.reward)),
        "Prompts": f"{len(data.train)} of {data.train_name}",
        "Held out": data.eval_name,
        "Training": f"{rollouts} rollouts of {args.rollout_batch_size} responses, {args.num_ppo_epochs} epochs of "
        f"{args.num_mini_batches} mini-batches on each: {updates} updates",
        "Precision": precision(args),
        "Folder": str(args.output_dir),
    }
    return plan | ({"Resume": inputs.checkpoint.name} if inputs.checkpoint else {})


def sample_and_score(evaluator: Evaluator, rows: Any) -> Scored:
    """One sampled response per row of the data set `rows`, scored."""
    prompts = list(rows["prompt"])
    decoded = evaluator.decode(prompts, greedy=False, num_samples=1, seed=evaluator.seed, with_reference=False)
    return score_texts(evaluator.reward, decoded.texts, prompts, further_columns(rows))


def estimate_minutes(evaluator: Evaluator, args: Seq2SeqPPOConfig, inputs: RunInputs) -> float:
    """Minutes of the whole run, from one rollout that is timed here; its update is assumed to take as long again."""
    train, size = inputs.data.train, args.rollout_batch_size
    batch = train.select([row // args.num_generations for row in range(size)])
    started = time.perf_counter()
    sample_and_score(evaluator, batch)
    seconds = time.perf_counter() - started
    # Evaluation: sampled and greedy, before and after, and the samples of the best-of yardstick.
    evaluation = (4 + BEST_OF) * len(inputs.data.held_out) / size
    return (2 * count_rollouts(args, len(train)) + evaluation) * seconds / 60
