"""What int8 gives the bundled judges on a CPU: time a text, and how far their logits move.

    OMP_NUM_THREADS=1 python benchmarks/int8_judges.py [TEXTS.txt] [--turns 5]

Beside float32, in alternation in one process: bfloat16, as `ClassifierReward(dtype="bfloat16")` has it; the linear
layers in torch's own int8 (`quantize_dynamic`: weights by layer, activations by batch), by every engine that this
torch has; and, where openvino and nncf are installed, the judge in OpenVINO, as it is and in int8 with the scales of
the last 100 texts, which are not measured. Batches of 32 texts sorted by length, tokens made beforehand. TEXTS.txt has
one text a line; without it the sentences of the bundled prompts. Prints the least CPU time a text, the mean and
largest difference of a logit from float32's, that mean in standard deviations of the logits, and the share of texts
that keep their label.
"""

import argparse
import copy
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reward_throughput import read_texts
from torch.ao.quantization import quantize_dynamic
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trl_rewards_plugin.assets import asset_path

BATCH, CALIBRATION = 32, 100

Way = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""A batch -> logits."""


def by_torch(model: torch.nn.Module, engine: str) -> Way:
    """The judge with its linear layers in int8, packed for an engine and run by it."""
    torch.backends.quantized.engine = engine
    made = quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)

    def logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        torch.backends.quantized.engine = engine
        return made(**batch).logits

    return logits


def by_openvino(model: torch.nn.Module, calibration: list[dict[str, torch.Tensor]]) -> dict[str, Way]:
    """The judge in OpenVINO, in float32 and in int8."""
    import nncf
    import openvino

    def compiled(graph: Any) -> Way:
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
        run = openvino.Core().compile_model(graph, "CPU", hints)
        return lambda batch: torch.from_numpy(run({name: ids.numpy() for name, ids in batch.items()})[0].copy())

    graph = openvino.convert_model(model, example_input=dict(calibration[0]))
    rows = nncf.Dataset([{name: ids.numpy() for name, ids in row.items()} for row in calibration])
    int8 = nncf.quantize(graph, rows, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
    return {"openvino": compiled(graph), "ov int8": compiled(int8)}


@torch.inference_mode()
def measure(judge: str, texts: list[str], turns: int) -> None:
    """Prints a row for each way."""
    folder = asset_path(judge)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).float().eval()

    def encoded(some: list[str]) -> dict[str, torch.Tensor]:
        return dict(tokenizer(some, padding=True, truncation=True, max_length=128, return_tensors="pt"))

    half = copy.deepcopy(model).bfloat16()

    def in_bfloat16(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return half(**batch).logits.float()

    ways: dict[str, Way] = {"float32": lambda batch: model(**batch).logits, "bfloat16": in_bfloat16}
    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    ways |= {name: by_torch(model, name) for name in engines}
    if importlib.util.find_spec("openvino") and importlib.util.find_spec("nncf"):
        ways |= by_openvino(model, [encoded([text]) for text in texts[-CALIBRATION:]])
    texts = sorted(texts[:-CALIBRATION], key=lambda text: len(tokenizer(text).input_ids))
    batches = [encoded(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
    times: dict[str, list[float]] = {name: [] for name in ways}
    logits = {}
    for _ in range(turns + 1):  # the first warms up
        for name, way in ways.items():
            began = time.process_time()
            logits[name] = torch.cat([way(batch) for batch in batches])
            times[name].append(1000 * (time.process_time() - began) / len(texts))
    exact, floor = logits["float32"], min(times["float32"][1:])
    for name, found in logits.items():
        error, least = (found - exact).abs(), min(times[name][1:])
        same = (found.argmax(1) == exact.argmax(1)).float().mean()
        print(
            f"{judge:<20}{name:<9}{least:>8.2f}{floor / least:>9.2f}{error.mean():>12.4f}{error.max():>10.4f}"
            f"{error.mean() / exact.std(0).mean():>12.3f}{same:>12.3f}"
        )


def main() -> None:
    """Measures both judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="?", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    texts = arguments.texts.read_text(encoding="utf-8").splitlines() if arguments.texts else read_texts()
    print(f"{len(texts) - CALIBRATION} texts, {torch.get_num_threads()} threads, torch {torch.__version__}")
    columns = f"{'ms/text':>8}{'x faster':>9}{'mean error':>12}{'largest':>10}{'mean / std':>12}{'same label':>12}"
    print(f"{'judge':<20}{'':<9}{columns}")
    for judge in ("acceptability-judge", "sentiment-judge"):
        measure(judge, texts, arguments.turns)


if __name__ == "__main__":
    main()
