"""What each piece of ppo/acceleration saves of an episode, measured alone.

    python benchmarks/acceleration_pieces.py --mini 4 --per_episode 2.9
    python benchmarks/acceleration_pieces.py --smoke

With and without a piece take turns in one process and one thread, on an encoder of FLAN-T5-small's width with 2 of its
8 layers, there and back over one mini-batch and there alone. The least CPU time of each counts, since other users of
the machine only add to it. `--per_episode` are the CPU seconds of a whole episode (ppo_episode.py).
Leaves out: kept_memory.py, whose effect needs a process of its own for each turn, and speed on a GPU.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest import mock

import real_size
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.activations import NewGELUActivation

from trl_rewards_plugin.ppo.acceleration import packed_t5, seam
from trl_rewards_plugin.ppo.acceleration.kept_memory import kept_memory
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.architectures.forward_passes import run_encoder
from trl_rewards_plugin.ppo.policy.prompts import tokenize_prompts

LAYERS, OF_LAYERS = 2, 8
EPOCHS, ENCODED = 4, 2  # an episode trains the encoder 4 times, and runs it for sampling and for the reference


def torch_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, lengths: list[int]) -> Tensor:
    """`packed_attention` by torch's own attention."""
    parts = [part.unflatten(1, (len(bias), -1)).transpose(0, 1).unsqueeze(0) for part in (query, key, value)]
    rows = [
        nn.functional.scaled_dot_product_attention(q, k, v, bias[None, :, :length, :length], scale=1.0)
        for length, q, k, v in zip(lengths, *(part.split(lengths, dim=2) for part in parts), strict=True)
    ]
    return torch.cat(rows, dim=2)[0].transpose(0, 1).flatten(1)


@contextmanager
def written_out_gelu(model: nn.Module) -> Iterator[None]:
    """Within it GELU is transformers' own."""
    fused = [
        (part, name) for part in model.modules() for name, child in part.named_children() if type(child) is nn.GELU
    ]
    for part, name in fused:
        setattr(part, name, NewGELUActivation())
    yield
    for part, name in fused:
        setattr(part, name, nn.GELU(approximate="tanh"))


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Measures, prints a line a piece."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mini", type=int, default=4, help="prompts a mini-batch")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each piece")
    parser.add_argument("--per_episode", type=float, default=2.9, help="CPU seconds of an episode")
    parser.add_argument("--smoke", action="store_true", help="one turn of one prompt, to see that it runs")
    args = parser.parse_args()
    mini, repeats = (1, 1) if args.smoke else (args.mini, args.repeats)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
    model = T5ForConditionalGeneration(T5Config(vocab_size=real_size.VOCABULARY, num_layers=LAYERS, **shape))
    make_deterministic(model)
    model.train()
    prompts, _ = tokenize_prompts(real_size.make_prompts(mini), real_size.make_tokenizer(), 512)

    def train() -> None:
        run_encoder(model, prompts.ids, prompts.mask).sum().backward()
        model.zero_grad()

    @torch.no_grad()
    def encode() -> None:
        run_encoder(model, prompts.ids, prompts.mask)

    without: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "T5 encoder without padding": lambda: mock.patch.object(seam, "encode", return_value=None),
        "its own attention": lambda: mock.patch.object(packed_t5, "packed_attention", torch_attention),
        "GELU in one pass": lambda: written_out_gelu(model),
    }
    with kept_memory(torch.device("cpu")):
        for name, leave_out in without.items():
            saved = 0.0
            for work, times in ((train, EPOCHS), (encode, ENCODED)):
                seconds: dict[bool, list[float]] = {True: [], False: []}
                work()
                for _ in range(repeats):
                    for is_there in (True, False):
                        with nullcontext() if is_there else leave_out():
                            seconds[is_there].append(cpu_seconds(work))
                saved += (min(seconds[False]) - min(seconds[True])) * times / mini * OF_LAYERS / LAYERS
            print(f"{name:<28}{saved:+.3f} s, {saved / (args.per_episode + saved):.1%} of an episode without it")


if __name__ == "__main__":
    main()
