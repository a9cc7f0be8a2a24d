"""Targets in place of weights: the bundled tiny T5, trained for acceptability with two bounds, in a few minutes.

    python examples/targets.py

prints what held-out prompts got (three seeds: benchmarks/README.md):

    acceptability: -0.02 before, 0.27 after
    neutrality at least 0.65: mean 0.723, met by 0.073
    words at most 8.5: mean 8.281, met by 0.219
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
        constraints={"neutrality": {"min": 0.65}, "words": {"max": 8.5}},
    )
    settings = {"output_dir": output_dir, "overwrite": True, **SETTINGS, **settings}
    result = Seq2SeqPPO.from_preset("tiny", reward=reward, echo=lambda text: None, **settings).run()
    before, after = (result.metrics[side]["acceptability"] for side in ("before", "after"))
    print(f"acceptability: {before:.2f} before, {after:.2f} after")
    print("\n".join(targets_in_words(result.metrics["targets"])))
    return result


if __name__ == "__main__":
    main()
