"""The article's whole job by shape, in one line: seconds and peak memory.

    python benchmarks/article_run.py --gpu
    python benchmarks/article_run.py --prompts 64 --epochs 1

1,000 prompts of about 256 tokens, 5 epochs, at most 50 new tokens, a model of FLAN-T5-small's size, two judges of
roberta-base's, random weights; rollouts of 32, mini-batches of 16, 4 PPO epochs. The article took about 4 hours on one
P100. On a CPU, give fewer prompts. Leaves out: whether anything is learnt.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import real_size
import torch
from datasets import Dataset
from transformers import PrinterCallback

from trl_rewards_plugin import Seq2SeqPPOConfig, Seq2SeqPPOTrainer


def main() -> None:
    """Runs the job, prints the line, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--freeze_encoder", action="store_true")
    parser.add_argument("--gpu", dest="cpu", action="store_false")
    parser.add_argument("--no_cuda_graphs", dest="cuda_graphs", action="store_false", default=None)
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real_size.save_models(folder)
        config = Seq2SeqPPOConfig(
            output_dir=str(folder / "run"),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=32,
            num_mini_batches=2,
            num_ppo_epochs=4,
            response_length=50,
            max_unended_share=None,  # a random model hardly ever ends
            freeze_encoder=args.freeze_encoder,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=args.cpu,
            cuda_graphs=args.cuda_graphs,
        )
        trainer = Seq2SeqPPOTrainer(
            str(folder / "policy"),
            real_size.make_reward(folder),
            config,
            train_dataset=Dataset.from_dict({"prompt": real_size.make_prompts(args.prompts)}),
            processing_class=real_size.make_tokenizer(),
        )
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    by_graphs = trainer.calls.maker is not None and not trainer.calls.eager
    memory = real_size.peak_memory_gib() if args.cpu else torch.cuda.max_memory_allocated() / 2**30
    machine = real_size.machine("cpu" if args.cpu else "cuda")
    print(
        f"{trainer.episodes} episodes ({args.prompts} prompts, {args.epochs} epochs) in {seconds:.0f} s, "
        f"peak memory {memory:.1f} GiB; {machine['device']}, {machine['threads']} threads, "
        f"{'with' if by_graphs else 'without'} CUDA graphs"
    )
    if args.output:
        record = {
            "machine": machine,
            "cuda_graphs": by_graphs,
            "episodes": trainer.episodes,
            "seconds": seconds,
            "peak_memory_gib": memory,
        }
        args.output.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
