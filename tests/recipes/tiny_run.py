"""A run small enough for seconds: tiny random models, two judges, forty prompts. Leaves out: sense in any text."""

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.tiny_models import WORDS, tiny_classifier, tiny_t5

# What makes a run short; flags and keyword arguments alike.
SHORT: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 8,
    "num_mini_batches": 2,
    "num_ppo_epochs": 1,
    "response_length": 8,
    "learning_rate": 1e-3,
    "use_cpu": True,
}


class TinyRun(NamedTuple):
    """Paths of everything that a run needs."""

    model: str
    reward: str
    dataset: str


def sentences(count: int, seed: int = 0) -> list[str]:
    """`count` different texts of two sentences each."""
    generator = random.Random(seed)
    words = [word for word in WORDS if word.isalpha()]
    return [
        " ".join(generator.choices(words, k=5)) + ". " + " ".join(generator.choices(words, k=4)) + "."
        for _ in range(count)
    ]


def make_tiny_run(folder: Path) -> TinyRun:
    """Saves models, a reward file and prompts under `folder`."""
    judges = {"acceptability": ("unacceptable", "acceptable"), "neutrality": ("negative", "neutral", "positive")}
    for seed, (name, labels) in enumerate(judges.items()):
        tiny_classifier(folder / name, labels, seed=seed)
    reward = folder / "two-judges.yaml"
    parts = [
        {"model": str(folder / name), "label": labels[1], "name": name, "weight": 1.0 / (index + 1)}
        for index, (name, labels) in enumerate(judges.items())
    ]
    reward.write_text(yaml.safe_dump({"rewards": parts}), encoding="utf-8")
    dataset = folder / "prompts.jsonl"
    dataset.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in sentences(40)), encoding="utf-8")
    return TinyRun(str(tiny_t5(folder / "t5")), str(reward), str(dataset))
