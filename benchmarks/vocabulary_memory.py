"""How peak memory grows with the vocabulary: one rollout of 32 prompts and its update, at 32 k and at 128 k tokens.

    python benchmarks/vocabulary_memory.py [--gpu]

A model of FLAN-T5-small's size with random weights, prompts of about 256 tokens, 50 new tokens, mini-batches of 16,
each vocabulary in a process of its own. `--gpu` counts the memory of the device. What must grow is taken off:
the embedding and the output matrix of the policy with their gradients and the optimizer's two states, and those of the
reference. Leaves out: the judges.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import real_size
import torch
from datasets import Dataset
from transformers import PrinterCallback

from trl_rewards_plugin import Seq2SeqPPOConfig, Seq2SeqPPOTrainer

WIDTH, BYTES = 512, 4
MATRICES = 2 * (1 + 1 + 2 + 1)  # embedding and output matrix: weight, gradient, two states; weight of the reference
SIZES = (32_128, 128_256)


def length_reward(completions: list[str], **_: object) -> list[float]:
    """Something that costs no memory."""
    return [float(len(text)) for text in completions]


def run_one(vocabulary: int, gpu: bool) -> float:
    """Peak memory of one rollout and its update, in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        config = Seq2SeqPPOConfig(
            output_dir=folder,
            per_device_train_batch_size=32,
            num_mini_batches=2,
            num_ppo_epochs=1,
            response_length=50,
            min_new_tokens=49,
            max_unended_share=None,
            max_steps=1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not gpu,
        )
        trainer = Seq2SeqPPOTrainer(
            real_size.make_policy(vocabulary),
            length_reward,
            config,
            train_dataset=Dataset.from_dict({"prompt": real_size.make_prompts(32)}),
            processing_class=real_size.make_tokenizer(vocabulary),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return torch.cuda.max_memory_allocated() / 2**30 if gpu else real_size.peak_memory_gib()


def main() -> None:
    """Measures both, prints the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="train on the GPU, and count its memory")
    parser.add_argument("--one", type=int, help="measure this vocabulary here, and print GiB")
    args = parser.parse_args()
    if args.one:
        print(run_one(args.one, args.gpu))
        return
    rest = []
    for size in SIZES:
        command = [sys.executable, str(Path(__file__)), "--one", str(size), *(["--gpu"] if args.gpu else [])]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peak = float(output.strip().splitlines()[-1])
        must = size * WIDTH * BYTES * MATRICES / 2**30
        rest.append(peak - must)
        print(f"vocabulary {size:>7,}: peak {peak:.2f} GiB, of them {must:.2f} matrices, the rest {rest[-1]:.2f}")
    growth = rest[1] / rest[0] - 1
    print(f"the rest grew by {growth:.1%}")
    print(json.dumps({"torch": torch.__version__, "rest_gib": rest, "growth": growth}))


if __name__ == "__main__":
    main()
