"""One reward of classifiers, small ready-made rewards and a judge of your own, saved as a file. Runs offline.

    python examples/any_reward.py my_reward.yaml

Leaves out: training; pass the reward as `reward_funcs` to GRPOTrainer, RLOOTrainer or Seq2SeqPPOTrainer. Prints:

    +2.73  The cat sleeps on the sofa.  (acceptability 0.80, neutrality 1.19, length 1.00, rougeL_summary 0.83, ...)
    +0.65  cat sofa sofa sleeps the  (acceptability -0.70, neutrality 0.96, length 1.00, rougeL_summary 0.36, ...)
    +2.49  Where does the cat sleep?  (acceptability 0.90, neutrality 1.25, length 1.00, rougeL_summary 0.36, ...)
"""

import sys

from trl_rewards_plugin import CallableReward, MultiClassifierReward
from trl_rewards_plugin.rewards import LengthReward, SimilarityReward


async def asks(completions):
    """Async rewards run together; this one would ask a server. The names are those of the columns it wants."""
    return [1.0 if text.rstrip().endswith("?") else 0.0 for text in completions]


def main(path: str | None = None) -> None:
    judges = MultiClassifierReward.from_preset("tiny").rewards
    small = [LengthReward(min_length=3, max_length=12), SimilarityReward("summary")]
    reward = MultiClassifierReward(
        [*judges, *small, CallableReward(asks, timeout=30, retries=3)],
        weights=[1.0, 0.5, 0.5, 1.0, 0.1],
        name="any",
        clip={"acceptability": (-2.0, 2.0)},
        weight_schedule={"asks": {0.0: 0.0, 0.5: 1.0}},  # factor: 0 to 1 in the first half of training
    )
    texts = ["The cat sleeps on the sofa.", "cat sofa sofa sleeps the", "Where does the cat sleep?"]
    scores = reward.score(texts, summary=["The cat is on the sofa."] * 3)
    for index, text in enumerate(texts):
        parts = ", ".join(f"{name} {values[index]:.2f}" for name, values in scores.components.items())
        print(f"{scores.total[index]:+.2f}  {text}  ({parts})")
    if path is not None:  # without the function of this script, which no other program can import
        MultiClassifierReward([*judges, *small], reward.weights[:4], name="any").save_preset(path)
        print(f"Saved {path}: MultiClassifierReward.from_preset reads it.")


if __name__ == "__main__":
    main(*sys.argv[1:])
