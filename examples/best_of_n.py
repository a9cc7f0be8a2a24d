"""Best of n: what sampling alone reaches, and with another judge's word on it. Every training should beat this.

    python examples/best_of_n.py

Sixteen answers of the bundled tiny T5 to each of 32 prompts, the best by the reward kept. Then `grammaticality`, as an
evaluate metric, judges both; here it is the judge of the reward itself, which is why it agrees. Prints:

    best of 1: mean reward +0.26, grammaticality 0.51
    best of 16: mean reward +0.95, grammaticality 0.73
"""

import evaluate
from datasets import load_dataset

from trl_rewards_plugin import best_of_n
from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.metrics import GRAMMATICALITY


def main(prompts: int = 32, n: int = 16) -> None:
    """Prints the mean reward and grammaticality of one sample and of the best of n."""
    file = str(asset_path("prompts") / "heldout.jsonl")
    texts = load_dataset("json", data_files=file, split="train")["prompt"][:prompts]
    grammaticality = evaluate.load(GRAMMATICALITY, "tiny")
    for count in (1, n):
        best = best_of_n("bundled:tiny-t5", "tiny", texts, n=count)
        judged = grammaticality.compute(predictions=best.texts)["grammaticality"]
        print(f"best of {count}: mean reward {best.scores.total.mean():+.2f}, grammaticality {judged:.2f}")


if __name__ == "__main__":
    main()
