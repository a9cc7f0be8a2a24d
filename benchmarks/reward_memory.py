"""How much memory several classifiers take: one copy or two, off the memory in between, in batches, behind a server.

    python benchmarks/reward_memory.py [--texts 32] [--words 120]

Two classifiers of roberta-base's size with random weights score 32 texts of 120 words on the CPU, each way in a
process of its own. Printed is its peak of resident memory above what it held before the rewards were built, in MB
(10^6 bytes), and the seconds of its second call, which loads only what the first one let go. On a GPU read
`torch.cuda.max_memory_allocated` instead: there is offload="cpu" too, for which the CPU is no place to go.
Linux only; what is measured is /proc/self/status.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import real_size
from reward_server import start_server

from trl_rewards_plugin import ClassifierReward, MultiClassifierReward, RemoteReward

ONE, TWO = real_size.CLASSIFIERS


def two_labels(folder, names=(ONE, ONE), **settings):
    """Rewards of two labels, of one classifier or of two."""
    return [
        ClassifierReward(folder / name, label=f"LABEL_{index}", name=f"{name}-{index}", **settings)
        for index, name in enumerate(names)
    ]


def called_in_turn(rewards):
    """Rewards that know nothing of each other, each with its own copy."""
    return lambda texts: [reward(texts) for reward in rewards]


WAYS = {
    "two labels of one classifier, combined": lambda folder: MultiClassifierReward(two_labels(folder)),
    "two labels of one classifier, apart": lambda folder: called_in_turn(two_labels(folder)),
    "two classifiers": lambda folder: MultiClassifierReward(two_labels(folder, (ONE, TWO))),
    "two classifiers, all texts in one batch": lambda folder: MultiClassifierReward(
        two_labels(folder, (ONE, TWO), batch_size=1024)
    ),
    "two classifiers, offload='disk'": lambda folder: MultiClassifierReward(
        two_labels(folder, (ONE, TWO), offload="disk")
    ),
}
SERVED = "two classifiers behind a server"


def resident(what: str, process: str = "self") -> float:
    """VmRSS (now) or VmHWM (peak) of a process, in MB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def measure(reward_of, texts: list[str]) -> dict[str, float]:
    """Peak above the start in MB, and the seconds of the second call."""
    before = resident("VmRSS")
    reward = reward_of()
    reward(texts)
    began = time.perf_counter()
    reward(texts)
    return {"seconds": time.perf_counter() - began, "megabytes": resident("VmHWM") - before}


def main() -> None:
    """Prints one line a way; with --way only that one's numbers, as JSON, from this very process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--at", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = {"shortest": arguments.words, "longest": arguments.words}
    texts = real_size.make_prompts(arguments.texts, **size)
    if arguments.way:
        made = {SERVED: lambda place: RemoteReward(str(place)), **WAYS}[arguments.way]
        place = arguments.at if arguments.way == SERVED else Path(arguments.at)
        print(json.dumps(measure(lambda: made(place), texts)))
        return

    def asked(way: str, place: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--way", way, "--at", place]
        command += ["--texts", str(arguments.texts), "--words", str(arguments.words)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    with tempfile.TemporaryDirectory() as folder:
        real_size.save_models(Path(folder))
        print(f"{'':<44}{'peak, MB':>10}{'seconds':>10}")
        for way in WAYS:
            found = asked(way, folder)
            print(f"{way:<44}{found['megabytes']:>10.0f}{found['seconds']:>10.2f}", flush=True)
        rows = [{"model": f"{folder}/{name}", "label": "LABEL_1", "name": name} for name in (ONE, TWO)]
        file = Path(folder, "served.yaml")
        file.write_text(json.dumps({"rewards": rows}), encoding="utf-8")
        process, url = start_server(str(file))
        try:
            found = asked(SERVED, url)
            server = resident("VmHWM", str(process.pid))
        finally:
            process.terminate()
            process.wait()
        print(f"{SERVED + ', client':<44}{found['megabytes']:>10.0f}{found['seconds']:>10.2f}")
        print(f"{SERVED + ', whole server':<44}{server:>10.0f}")


if __name__ == "__main__":
    main()
