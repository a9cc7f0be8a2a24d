"""Where do the objectives that rank a prompt's responses end? On the problems of known_optimum.py, with one token.

    python benchmarks/known_optimum_objectives.py
    python benchmarks/known_optimum_objectives.py --objectives dpo --seeds 0

Three ends are known in closed form:

    dpo                 policy proportional to reference exp(reward / beta): its Bradley-Terry labels
    raft                the same with kl_coef for beta: what is ranked is reward - kl_coef log(policy / reference), and
                        there all responses to a prompt have the same rank
    raft, one rollout   without KL, learnt to the end from one rollout of the reference: best of n of the reference, a
                        response's probability is F(reward)^n - F(below it)^n, F the distribution of the reference's
                        rewards (Gui et al., arXiv 2406.00832). Every further rollout would raise n to the next power.

Prints the total variation distance to that end before and after training, the mean over prompts. Leaves out: dpo with
hard labels and many rollouts of raft without KL, which end at the best response alone.
"""

import argparse

from known_optimum import BETA, REACHED, optimum, train_towards
from torch import Tensor

N = 4
SMALL = {"learning_rate": 1e-2, "num_generations": 2, "per_device_train_batch_size": 256, "num_ppo_epochs": 4}


def best_of_n(reference: Tensor, rewards: Tensor, beta: float = BETA) -> Tensor:
    """The distribution of the best of N samples of the reference: log reference (P, answers) -> (P, answers)."""
    given, rewards = reference.exp(), rewards.flatten(1)
    below = (given.unsqueeze(1) * (rewards.unsqueeze(1) < rewards.unsqueeze(2))).sum(-1)
    return (below + given) ** N - below**N


OBJECTIVES = {
    "dpo": (optimum, {**SMALL, "objective": "dpo", "beta": BETA, "max_steps": 100}),
    "raft": (optimum, {**SMALL, "objective": "raft", "kl_coef": BETA, "max_steps": 100}),
    "raft, one rollout": (
        best_of_n,
        {
            "objective": "raft",
            "kl_coef": 0.0,
            "learning_rate": 1e-2,
            "num_generations": N,
            "per_device_train_batch_size": 8192,
            "num_ppo_epochs": 200,
            "max_steps": 1,
        },
    ),
}


def main(objectives: list[str], seeds: list[int]) -> list[dict]:
    """Prints and returns one run for each objective and seed."""
    runs = []
    for name in objectives:
        end, settings = OBJECTIVES[name]
        for seed in seeds:
            runs.append({"objective": name, **train_towards(end, settings, 1, seed)})
            before, after = runs[-1]["before"], runs[-1]["after"]
            reached = "reached" if after < REACHED else "not reached"
            print(f"{name:<18} seed {seed}: {before:.3f} -> {after:.4f}  {reached}", flush=True)
    return runs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ends of the objectives that rank, on problems where they are known.")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = parser.parse_args()
    main(chosen.objectives, chosen.seeds)
