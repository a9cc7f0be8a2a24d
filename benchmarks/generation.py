"""Tokens a second that the sampler draws, beside `model.generate` on the same model in the same process.

    python benchmarks/generation.py --out generation

A T5 of FLAN-T5-small's size with random weights; prompts of about 256 tokens; exactly 50 new tokens, sampled at
temperature 1 from the whole vocabulary. Both take turns. Ours also keeps the log-probability of every token, and on a
GPU replays its decoding step as a CUDA graph. --dtypes bfloat16 is autocast, as in training, for both.
Leaves out: what else a rollout needs (ppo_episode.py).
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import real_size
import torch
from transformers import GenerationConfig

from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls, maker_for
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts, PromptCollator
from trl_rewards_plugin.ppo.policy.sampling import sample_responses
from trl_rewards_plugin.ppo.policy.token_rules import token_rules

NEW_TOKENS = 50


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, the device's queue included."""
    began = real_size.now(device)
    work()
    return real_size.now(device) - began


def measure(
    batch: int, repeats: int, device: torch.device, dtype: torch.dtype, by_graphs: bool | None
) -> dict[str, float]:
    """Median tokens a second of both."""
    maker = None if by_graphs is False else maker_for(device)
    calls = StaticCalls(maker, tolerance=0.1, fixed=device.type == "cuda")
    model = real_size.make_policy().to(device).eval()
    make_deterministic(model)
    # EOS may be the last of the tokens: without that, nothing would be allowed there that ends a response.
    rules = token_rules(model, min_new_tokens=NEW_TOKENS - 1)
    collate = PromptCollator(real_size.make_tokenizer(), 512, calls.widths.prompt)
    prompts = collate([{"prompt": text} for text in real_size.make_prompts(batch)])
    ids, mask = prompts["prompt_ids"].to(device), prompts["prompt_mask"].to(device)
    plain = GenerationConfig(
        do_sample=True,
        top_k=0,
        top_p=1.0,
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        decoder_start_token_id=rules.start_id,
        eos_token_id=rules.eos_ids[0],
        pad_token_id=rules.pad_id,
    )
    ways = {
        "ours": lambda: sample_responses(model, EncodedPrompts(ids, mask), rules, NEW_TOKENS, calls=calls),
        "generate": lambda: model.generate(input_ids=ids, attention_mask=mask.long(), generation_config=plain),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):  # the first is a warm-up
        for name, work in ways.items():
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                taken = timed(work, device)
            if turn:
                seconds[name].append(taken)
    if calls.eager:
        raise RuntimeError("CUDA graphs were given up; the log says why")
    return {name: batch * NEW_TOKENS / statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measures, prints the table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no_cuda_graphs", dest="cuda_graphs", action="store_false", default=None)
    parser.add_argument("--out", type=Path, default=Path("generation"), help="folder of the JSON")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[int, dict[str, float]]] = {}
    for dtype in args.dtypes:
        print(f"{dtype + ', tokens a second':<28}{'ours':>10}{'generate':>10}{'times':>8}")
        for batch in args.batches:
            row = measure(batch, args.repeats, torch.device(args.device), getattr(torch, dtype), args.cuda_graphs)
            found.setdefault(dtype, {})[batch] = row
            ratio = row["ours"] / row["generate"]
            print(f"batch {batch:<22}{row['ours']:>10.0f}{row['generate']:>10.0f}{ratio:>8.2f}")
    record = {"machine": real_size.machine(args.device), "seed": 0, "tokens_a_second": found}
    (args.out / "generation.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
