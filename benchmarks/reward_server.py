"""How fast a reward is behind `trl-rewards serve`, with 64 clients at once, beside a local call of the same reward.

python benchmarks/reward_server.py [--reward NAME_OR_FILE.yaml] [--clients 64] [--texts 64] [--repeats 5]

Every client sends its own texts in one request; the local call scores all of them together. In alternation, and the
median counts. The server is a process of its own, on the same processors; nothing else should run on them.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from reward_throughput import read_texts

from trl_rewards_plugin.rewards import MultiClassifierReward, RemoteReward


def start_server(reward: str) -> tuple[subprocess.Popen[str], str]:
    """The process, and its address once it listens."""
    command = [sys.executable, "-m", "trl_rewards_plugin.cli.main", "serve", reward, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "running on" in line:
            return process, re.search(r"http://[\d.:]+", line)[0]
    raise RuntimeError(f"the server ended with {process.wait()}")


def seconds_of(work) -> tuple[float, list[float]]:
    """How long `work()` took, and the scores it returned."""
    began = time.perf_counter()
    scores = work()
    return time.perf_counter() - began, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reward", default="tiny")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--texts", type=int, default=64, help="texts of one client")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    known = read_texts()
    texts = [known[i % len(known)] + f" {i}" for i in range(arguments.clients * arguments.texts)]
    parts = [texts[i : i + arguments.texts] for i in range(0, len(texts), arguments.texts)]
    local = MultiClassifierReward.from_preset(arguments.reward)
    process, url = start_server(arguments.reward)
    try:
        clients = [RemoteReward(url) for _ in parts]
        with ThreadPoolExecutor(arguments.clients) as pool:

            def remotely() -> list[float]:
                return [
                    score for scores in pool.map(lambda client, own: client(own), clients, parts) for score in scores
                ]

            remotely()
            local(texts)
            times: dict[str, list[float]] = {"local": [], "server": []}
            for _ in range(arguments.repeats):
                seconds, expected = seconds_of(lambda: local(texts))
                times["local"].append(seconds)
                seconds, found = seconds_of(remotely)
                times["server"].append(seconds)
    finally:
        process.terminate()
        process.wait()
    median = {way: statistics.median(seconds) for way, seconds in times.items()}
    difference = max(abs(one - other) for one, other in zip(expected, found, strict=True))
    print(f"{len(texts):,} texts of {arguments.clients} clients, reward {arguments.reward}\n")
    print("| | seconds | texts a second | of local |\n| --- | ---: | ---: | ---: |")
    for way, seconds in median.items():
        print(f"| {way} | {seconds:.2f} | {len(texts) / seconds:,.0f} | {median['local'] / seconds:.2f} |")
    print(f"\nLargest difference of a score: {difference:.1e}")


if __name__ == "__main__":
    main()
