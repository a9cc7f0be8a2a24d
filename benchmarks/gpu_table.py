"""The results of gpu.sh as one Markdown table; a part that failed has a line of its own, and takes no other with it.

    python benchmarks/gpu_table.py FOLDER

Leaves out: measuring.
"""

import json
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

Rows = Iterator[tuple[str, str]]


def tests(folder: Path) -> Rows:
    """pytest's last line."""
    yield "tests marked `gpu`", (folder / "tests.log").read_text(encoding="utf-8").strip().splitlines()[-1].strip("= ")


def profile(folder: Path, name: str = "profile", title: str = "a rollout of 32") -> Rows:
    """A line a part, and the whole."""
    found = _read(folder, name)
    how = f"{'CUDA graphs' if found['cuda_graphs'] else 'no graphs'}, {found['precision']}"
    for part, numbers in found["parts"].items():
        yield f"{title}: {part}", _profiled(numbers)
    yield f"{title}: whole step ({how})", _profiled({**found, "wall_ms": found["step_ms"]})
    if "busy_share" in found:
        yield f"{title}: GPU busy", f"{found['busy_share']:.0%}"
    yield f"{title}: first step", f"{found['first_step_ms']:.0f} ms"
    reserved = f", reserved {found['peak_reserved_gib']:.2f}" if "peak_reserved_gib" in found else ""
    yield f"{title}: peak memory", f"{found['peak_memory_gib']:.2f} GiB{reserved}"


def profile_eager(folder: Path) -> Rows:
    """The same with cuda_graphs=False, and how much more memory graphs take."""
    yield from profile(folder, "profile_eager", "without graphs")
    graphs, eager = (_read(folder, name)["peak_memory_gib"] for name in ("profile", "profile_eager"))
    yield "peak memory, graphs beside none", f"{graphs / eager:.2f} times"


def article_run(folder: Path) -> Rows:
    """One line."""
    found = _read(folder, "article_run")
    how = "CUDA graphs" if found["cuda_graphs"] else "no graphs"
    memory = f"{found['peak_memory_gib']:.1f} GiB"
    yield f"the article's job ({found['episodes']} episodes, {how})", f"{found['seconds']:.1f} s, {memory}"


def ppo_episode(folder: Path) -> Rows:
    """Seconds an episode by part: ours, the article's loop, and times as fast."""
    found = _read(folder, "ppo_episode")["seconds_an_episode"]
    for part in ("generation", "reward", "update", "total"):
        ours = found["ours"][part]
        line = f"{ours:.4f} s"
        if "article" in found:
            theirs = found["article"][part]
            line += f"; the article's loop {theirs:.4f} s: {theirs / ours:.1f} times as fast"
        yield f"an episode: {part}", line


def generation(folder: Path) -> Rows:
    """Tokens a second."""
    for dtype, batches in _read(folder, "generation")["tokens_a_second"].items():
        for batch, row in batches.items():
            ratio = row["ours"] / row["generate"]
            line = f"{row['ours']:.0f} tokens/s; `generate` {row['generate']:.0f}: {ratio:.1f} times"
            yield f"generation, {dtype}, batch {batch}", line


def reward_throughput(folder: Path) -> Rows:
    """Seconds of each way."""
    found = _read(folder, "reward_throughput")
    for way, seconds in found["median_seconds"].items():
        yield f"rewards of {found['texts']} texts: {way}", f"{seconds:.3f} s"


PARTS: tuple[Callable[[Path], Rows], ...] = (
    tests,
    article_run,
    ppo_episode,
    generation,
    reward_throughput,
    profile,
    profile_eager,
)


def table(folder: Path) -> str:
    """The table, under a line that says what it was measured on."""
    lines = [_machine(folder), "", "| | |", "| --- | --- |"]
    for part in PARTS:
        status = folder / f"{part.__name__}.status"
        if not status.is_file():
            continue
        code, seconds = status.read_text(encoding="utf-8").split()
        if code != "0":
            lines.append(f"| {part.__name__} | **failed**: {_reason(folder, part.__name__, code)} |")
        try:
            lines += [f"| {name} | {value} |" for name, value in part(folder)]
        except (OSError, KeyError, IndexError) as error:
            if code == "0":
                lines.append(f"| {part.__name__} | **no result**: {type(error).__name__}: {error} |")
        lines.append(f"| *{part.__name__} took* | {seconds} s |")
    return "\n".join(lines)


def _machine(folder: Path) -> str:
    """Device and versions."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    machines = [one["machine"] for one in found if "machine" in one] or [{}]
    versions = {name: metadata.version(name) for name in ("trl", "accelerate") if _is_installed(name)}
    return ", ".join(f"{name} {value}" for name, value in {**machines[0], **versions}.items())


def _is_installed(name: str) -> bool:
    return any(metadata.distributions(name=name))


def _reason(folder: Path, name: str, code: str) -> str:
    """Why a part failed: the last line of its log."""
    log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
    why = "out of time, " if code in ("124", "137") else f"exit status {code}, "
    return why + log[-1][:300].replace("|", "\\|")


def _read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _profiled(numbers: dict[str, float]) -> str:
    shown = [f"{numbers['wall_ms']:.1f} ms"] if "wall_ms" in numbers else []
    if "busy_ms" in numbers:
        shown += [f"GPU busy {numbers['busy_ms']:.1f} ms", f"{numbers['kernels']:.0f} kernels"]
    return ", ".join(shown)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
