"""Targets in place of weights: the bundled tiny T5, trained for neutrality with two bounds, in a minute or two.

    python examples/targets.py

prints what held-out prompts got, in this form (numbers of an earlier version with earlier judges):

    neutrality: 0.37 before, 0.43 after
    acceptability at least 0.3: mean 0.356, met by 0.056
    words at most 8: mean 9.510, missed by 1.510
"""

from trl_rewards_plugin import LengthReward, MultiClassifierReward, RunResult, Seq2SeqPPO
from trl_rewards_plugin.runs.reward_description import targets_in_words

# Four responses to each prompt: their mean is a baseline that knows the prompt, and how long its answers are.
SETTINGS = {
    "advantage_estimator": "rloo",
    "num_generations": 4,
    "critic_learning_rate": None,  # there is no critic
    "learning_rate": 2e-4,
    "num_train_epochs": 3,
}


def main(output_dir: str = "runs/targets", **settings) -> RunResult:
    """Trains, and prints what became of the objective and of each target."""
    reward = MultiClassifierReward(
        [*MultiClassifierReward.from_preset("tiny").rewards, LengthReward(name="words")],
        constraints={"acceptability": {"min": 0.3}, "words": {"max": 8.5}},
    )
    settings = {"output_dir": output_dir, "overwrite": True, **SETTINGS, **settings}
    result = Seq2SeqPPO.from_preset("tiny", reward=reward, echo=lambda text: None, **settings).run()
    before, after = (result.metrics[side]["neutrality"] for side in ("before", "after"))
    print(f"neutrality: {before:.2f} before, {after:.2f} after")
    print("\n".join(targets_in_words(result.metrics["targets"])))
    return result


if __name__ == "__main__":
    main()
