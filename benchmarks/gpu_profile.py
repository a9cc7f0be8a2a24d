"""Where a rollout of the article's shape goes, by part: wall time, time that the GPU is busy, kernels, peak memory.

    python benchmarks/gpu_profile.py --gpu --output profile.json
    python benchmarks/gpu_profile.py --gpu --no_cuda_graphs

A rollout of 32 prompts of about 256 tokens, 50 new tokens, 4 epochs of 2 mini-batches; a model of FLAN-T5-small's size
and two judges of roberta-base's, random weights. After a warm-up a few whole rollouts are timed as they are; one with
the device waited for after each part, for the wall times of parts; one under torch.profiler, for the busy times, a
part's being the union of its kernels' intervals. Without a GPU there are wall times alone.
Leaves out: what single kernels do.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TEARDOWN_CUPTI"] = "0"  # a profiler that comes and goes would lose the kernels of CUDA graphs
os.environ["DISABLE_CUPTI_LAZY_REINIT"] = "1"

import real_size
import torch
from datasets import Dataset
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import PrinterCallback, TrainerCallback

from trl_rewards_plugin import Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.ppo import trainer as trainer_module

PARTS = ("encode", "sample", "rewards", "record", "update")
WARM_UP, WHOLE = (1, 1) if real_size.SMOKE else (3, 3)
STEPS = WARM_UP + WHOLE + 2  # then one by parts, and one under the profiler
BATCH = 4 if real_size.SMOKE else 32


class Stopwatch(TrainerCallback):
    """Times every rollout, and the parts of the last two.

    Attributes:
        whole: seconds of each rollout.
        parts: part -> {"wall_ms"} and on a GPU {"busy_ms", "kernels"}.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.whole: list[float] = []
        self.parts: dict[str, dict[str, float]] = {part: {} for part in PARTS}
        self._within: str | None = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Starts a rollout."""
        self._began = real_size.now(self.device)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Ends it."""
        self.whole.append(real_size.now(self.device) - self._began)

    def watched(self, part: str, work: Callable) -> Callable:
        """`work`, which is a part of the rollout unless another part does it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if self._within is not None or len(self.whole) < WARM_UP + WHOLE:
                return work(*args, **kwargs)
            self._within = part
            try:
                if len(self.whole) == WARM_UP + WHOLE:
                    return self._timed(part, lambda: work(*args, **kwargs))
                return self._profiled(part, lambda: work(*args, **kwargs))
            finally:
                self._within = None

        return run

    def _timed(self, part: str, work: Callable[[], Any]) -> Any:
        began = real_size.now(self.device)
        result = work()
        self._add(part, wall_ms=(real_size.now(self.device) - began) * 1e3)
        return result

    def _profiled(self, part: str, work: Callable[[], Any]) -> Any:
        if self.device.type != "cuda":
            return work()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            result = work()
            torch.cuda.synchronize()
        spans = [
            (event.time_range.start, event.time_range.end)
            for event in found.events()
            if event.device_type == DeviceType.CUDA
        ]
        self._add(part, busy_ms=union(spans) / 1e3, kernels=len(spans))
        return result

    def _add(self, part: str, **numbers: float) -> None:
        for name, value in numbers.items():
            self.parts[part][name] = self.parts[part].get(name, 0) + value


def union(spans: list[tuple[float, float]]) -> float:
    """The length of what any of the intervals covers."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def watch_parts(trainer: Seq2SeqPPOTrainer, watch: Stopwatch) -> None:
    """Lets the stopwatch see each part of the trainer's rollouts."""
    for part, name in (("encode", "encode_prompts"), ("sample", "sample_responses")):
        setattr(trainer_module, name, watch.watched(part, getattr(trainer_module, name)))
    for part, name in (("rewards", "_score"), ("record", "record"), ("update", "update")):
        setattr(trainer, name, watch.watched(part, getattr(trainer, name)))


def measure(folder: Path, cpu: bool, cuda_graphs: bool | None) -> dict[str, Any]:
    """Trains for a few rollouts; what is known of one."""
    device = torch.device("cpu" if cpu else "cuda")
    if not cpu:
        with profile(activities=[ProfilerActivity.CUDA]):  # before any graph is made, or its kernels are not seen
            torch.zeros(1, device=device).add_(1)
    real_size.save_models(folder)
    config = Seq2SeqPPOConfig(
        output_dir=str(folder / "run"),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        num_mini_batches=2,
        num_ppo_epochs=4,
        response_length=50,
        max_unended_share=None,  # a random model hardly ever ends
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=cpu,
        cuda_graphs=cuda_graphs,
    )
    watch = Stopwatch(device)
    trainer = Seq2SeqPPOTrainer(
        str(folder / "policy"),
        real_size.make_reward(folder),
        config,
        train_dataset=Dataset.from_dict({"prompt": real_size.make_prompts(BATCH * STEPS)}),
        processing_class=real_size.make_tokenizer(),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    watch_parts(trainer, watch)
    trainer.train()
    whole = statistics.median(watch.whole[WARM_UP : WARM_UP + WHOLE]) * 1e3
    found: dict[str, Any] = {
        "cuda_graphs": trainer.calls.maker is not None and not trainer.calls.eager,
        "precision": "bfloat16" if trainer.args.bf16 else "float32",
        "first_step_ms": watch.whole[0] * 1e3,
        "step_ms": whole,
        "parts": watch.parts,
        "peak_memory_gib": real_size.peak_memory_gib(),
    }
    if not cpu:
        busy = sum(numbers["busy_ms"] for numbers in watch.parts.values())
        found |= {
            "busy_ms": busy,
            "busy_share": busy / whole,
            "kernels": sum(numbers["kernels"] for numbers in watch.parts.values()),
            "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
            "peak_reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
        }
    return found


def main() -> None:
    """Measures, prints a line a part, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", dest="cpu", action="store_false")
    parser.add_argument("--no_cuda_graphs", dest="cuda_graphs", action="store_false", default=None)
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.cpu, args.cuda_graphs)
    for part, numbers in found["parts"].items():
        print(part, *(f"{name} {value:.1f}" for name, value in numbers.items()))
    print(*(f"{name} {value}" for name, value in found.items() if name != "parts"), sep="\n")
    if args.output:
        record = {"machine": real_size.machine("cpu" if args.cpu else "cuda"), **found}
        args.output.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
