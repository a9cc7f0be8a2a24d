"""Best against worst of n samples as preference pairs, and TRL's CPO on them, which takes encoder-decoders.

    python examples/preference_pairs.py

Eight answers of the bundled tiny T5 to each of 64 prompts; the best and the worst by the reward become `chosen` and
`rejected`, prompts whose samples tie are left out. `ORPOTrainer` takes the same rows. Prints the trainer's log, and in
the end how many pairs and ties there were and the mean reward of one sampled answer to each of 64 held-out prompts,
before and after. After ten steps the log has, among others:

    'rewards/accuracies': '0.9187', 'rewards/margins': '1.036'
"""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL says at import that its CPO may change

from datasets import load_dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from trl_rewards_plugin import best_of_n
from trl_rewards_plugin.assets import asset_path


def main(prompts: int = 64, n: int = 8, output_dir: str = "runs/preference_pairs", **settings) -> CPOTrainer:
    """Trains, and prints the mean reward of plain samples before and after."""
    folder, tokenizer = str(asset_path("tiny-t5")), AutoTokenizer.from_pretrained(asset_path("tiny-t5"))
    texts = {
        name: load_dataset("json", data_files=str(asset_path("prompts") / f"{name}.jsonl"), split="train")["prompt"]
        for name in ("train", "heldout")
    }
    before = best_of_n(folder, "tiny", texts["heldout"][:prompts], n=1)
    best = best_of_n(folder, "tiny", texts["train"][:prompts], n=n)
    defaults = {
        "num_train_epochs": 4, "per_device_train_batch_size": 16, "learning_rate": 3e-4, "beta": 0.1,
        "max_length": 128, "max_completion_length": 53, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "bf16": False, "dataloader_pin_memory": False,
    }  # fmt: skip
    trainer = CPOTrainer(
        AutoModelForSeq2SeqLM.from_pretrained(folder),
        CPOConfig(output_dir=output_dir, **{**defaults, **settings}),
        train_dataset=best.to_preference_dataset(),
        processing_class=tokenizer,
    )
    trainer.train()
    after = best_of_n(trainer.model.eval(), "tiny", texts["heldout"][:prompts], n=1, processing_class=tokenizer)
    means = " -> ".join(f"{each.scores.total.mean():+.2f}" for each in (before, after))
    print(f"{len(trainer.train_dataset)} pairs, {best.ties} ties: mean reward {means}")
    return trainer


if __name__ == "__main__":
    main()
