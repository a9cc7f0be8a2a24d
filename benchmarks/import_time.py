"""Seconds until the package is imported, and until the command line has shown its help, each in a fresh process.

    python benchmarks/import_time.py

Leaves out: what a bare interpreter takes to start, which is shown beside them.
"""

import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import trl_rewards_plugin": ["-c", "import sys, trl_rewards_plugin; assert 'torch' not in sys.modules"],
    "trl-rewards --help": ["-m", "trl_rewards_plugin.cli.main", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """Of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measures in turns, prints the medians."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(7):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    medians = {name: round(statistics.median(values), 3) for name, values in taken.items()}
    for name, value in medians.items():
        print(f"{name:<28}{value:>8.3f} s")
    print(json.dumps({"python": sys.version.split()[0], "seconds": medians}))


if __name__ == "__main__":
    main()
