"""The model card: data, a Markdown template, one render function.

A section of the template that has nothing to say is left out, heading and all. Leaves out: uploading, and any look-up
on the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from trl_rewards_plugin.errors import InputError

TEMPLATE = Path(__file__).with_name("card_template.md")
TAGS = ("trl", "ppo", "reinforcement-learning", "seq2seq", "classifier-reward")
SAMPLES = 3
GUARDS = {
    "rouge_l_source": "ROUGE-L against the source (F1)",
    "output_length": "Length in words",
    "distinct": "Share of distinct outputs",
    "not_whole_input": "Share that are not a copy of the whole input",
}
# Keys of config.yaml that are told in words of their own, or not at all.
NOT_SETTINGS = (
    "preset", "model", "reward", "dataset", "eval_dataset", "text_column", "prompt_prefix", "seed",
)  # fmt: skip
_DATA_FILES = (".jsonl", ".json", ".csv", ".parquet", ".txt")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class RewardModelCardData:
    """Everything that a card tells. What is empty or None is not mentioned.

    Attributes:
        model_name: Title, and the name in the quickstart.
        base_model: What was trained, without this machine's paths; linked if it reads owner/name.
        rewards: As `reward.describe()` gives them: name, model, label, weight, score_type.
        dataset: Where the prompts come from; linked if it reads owner/name.
        prompt_prefix: In front of every prompt.
        held_out: Which rows the numbers are from, in words.
        metrics: What `metrics.json` holds.
        samples: Rows with `source`, `before`, `after`, `before_reward`, `after_reward`.
        epoch_rewards: Mean training reward of each epoch.
        curve: File name of the reward curve beside the card.
        settings: Config fields that were not left at their default.
        seed: Of the run.
        config_file: File name beside the card that `trl-rewards train --config` reads.
        versions: Package -> version.
        license: SPDX id in lower case, where it is known.
        pipeline_tag: Task on the Hub.
        tags: Further tags, beside those that every card has.
    """

    model_name: str
    base_model: str | None = None
    rewards: Sequence[Mapping[str, Any]] = ()
    dataset: str | None = None
    prompt_prefix: str = ""
    held_out: str | None = None
    metrics: Mapping[str, Any] | None = None
    samples: Sequence[Mapping[str, Any]] = ()
    epoch_rewards: Sequence[float] = ()
    curve: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    config_file: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    license: str | None = None
    pipeline_tag: str | None = None
    tags: Sequence[str] = ()


def generate_model_card(run_or_trainer: Any) -> str:
    """The card of a run folder, a `RunResult` or a trainer, as Markdown.

    A trainer knows its settings and its log; only a run folder has results on held-out prompts.
    """
    folder = getattr(run_or_trainer, "folder", run_or_trainer)
    if isinstance(folder, str | Path):
        return render_model_card(card_data_from_folder(Path(folder)))
    return render_model_card(card_data_from_trainer(run_or_trainer))


def card_data_from_folder(folder: Path) -> RewardModelCardData:
    """Reads a run folder: `config.yaml`, `metrics.json`, `completions.parquet`, the reward curve.

    Raises:
        InputError: it is no run folder.
    """
    files = {name: folder / name for name in ("config.yaml", "metrics.json", "completions.parquet")}
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing:
        step = "give the output_dir of a finished run"
        raise InputError(f"a run folder with {', '.join(files)}", f"{folder} without {', '.join(missing)}", step)
    config = yaml.safe_load(files["config.yaml"].read_text(encoding="utf-8"))
    made_of = config.pop("made_of", {})
    named = {key: config.pop(key, None) for key in NOT_SETTINGS}
    again = bool(named["model"] and named["reward"] and named["dataset"])
    prefix = named["prompt_prefix"] or ""
    pushed_to = made_of.get("push_to")
    return RewardModelCardData(
        model_name=pushed_to or folder.resolve().name,
        base_model=named["model"],
        rewards=made_of.get("rewards", ()),
        dataset=named["dataset"],
        prompt_prefix=prefix,
        held_out=made_of.get("held_out"),
        metrics=json.loads(files["metrics.json"].read_text(encoding="utf-8")),
        samples=_samples(files["completions.parquet"]),
        epoch_rewards=made_of.get("epoch_rewards", ()),
        curve="reward_curve.png" if (folder / "reward_curve.png").is_file() else None,
        settings=config,
        seed=named["seed"],
        config_file="config.yaml" if again else None,
        versions=made_of.get("versions", {}),
        license=made_of.get("license"),
        pipeline_tag=_task(prefix),
    )


def _samples(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    columns = ["source", "before", "after", "before_reward", "after_reward"]
    return pyarrow.parquet.read_table(path, columns=columns).slice(0, SAMPLES).to_pylist()


def _task(prompt_prefix: str) -> str | None:
    # text2text-generation is deprecated on the Hub; only T5's own prefixes tell which of its successors fits.
    for start, task in (("summarize", "summarization"), ("translate", "translation")):
        if prompt_prefix.lower().startswith(start):
            return task
    return None


def card_data_from_trainer(trainer: Any) -> RewardModelCardData:
    """What a trainer alone knows: base model, settings, seed, its log."""
    config = getattr(trainer.policy_model, "config", None)
    base = str(getattr(config, "_name_or_path", "") or "")
    history = trainer.state.log_history
    return RewardModelCardData(
        model_name=Path(str(trainer.args.output_dir)).resolve().name,
        base_model=base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        epoch_rewards=[row["epoch_reward"] for row in history if "epoch_reward" in row],
        seed=trainer.args.seed,
    )


def render_model_card(data: RewardModelCardData) -> str:
    """Markdown with YAML front matter; the same data give the same text."""
    fields = {
        "title": data.model_name,
        "intro": _intro(data),
        "rewards": _rewards(data),
        "results": _results(data),
        "guards": _guards(data),
        "yardsticks": _yardsticks(data),
        "curve": f"![Mean training reward and KL by episode]({data.curve})" if data.curve else "",
        "training": _training(data),
        "samples": _sample_rows(data),
        "quickstart": _quickstart(data),
        "reproduce": _reproduce(data),
        "limits": _limits(data),
    }
    head, *sections = re.split(r"(?m)^(?=## )", TEMPLATE.read_text(encoding="utf-8"))
    kept = [head] + [section for section in sections if _says_something(section, fields)]
    body = Template("".join(kept)).substitute(fields, front_matter=_front_matter(data))
    return re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


def _says_something(section: str, fields: Mapping[str, str]) -> bool:
    return any(fields[name] for name in re.findall(r"\$(\w+)", section))


def _front_matter(data: RewardModelCardData) -> str:
    values: dict[str, Any] = {
        "library_name": "transformers",
        "license": data.license,
        "base_model": data.base_model if _is_hub_id(data.base_model) else None,
        "datasets": [data.dataset] if _is_hub_id(data.dataset) else None,
        "pipeline_tag": data.pipeline_tag,
        "tags": [*TAGS, *data.tags],
    }
    kept = {key: value for key, value in values.items() if value}
    return f"---\n{yaml.safe_dump(kept, sort_keys=False)}---\n"


def _is_hub_id(name: str | None) -> bool:
    return bool(name and _HUB_ID.fullmatch(name) and not name.endswith(_DATA_FILES))


def _link(name: str, kind: str = "") -> str:
    return f"[{name}](https://huggingface.co/{kind}{name})" if _is_hub_id(name) else f"`{name}`"


def _intro(data: RewardModelCardData) -> str:
    what = f"{_link(data.base_model)}, an encoder-decoder," if data.base_model else "An encoder-decoder,"
    why = " for what text classifiers judge" if data.rewards else ""
    text = f"{what} trained further by PPO{why}, with `trl_rewards_plugin`."
    if data.dataset:
        prompts = _link(data.dataset, "datasets/")
        text += f" Prompts: {prompts}" + (f', each behind "{data.prompt_prefix}".' if data.prompt_prefix else ".")
    return text


def _rewards(data: RewardModelCardData) -> str:
    if not data.rewards:
        return ""
    lines = ["| Reward | Weight | Judge | Label | Score |", "| --- | ---: | --- | --- | --- |"]
    for part in data.rewards:
        judge = _link(str(part["model"])) if part.get("model") else "a function"
        label = f"`{part['label']}`" if part.get("label") is not None else ""
        lines.append(f"| {part['name']} | {part['weight']:g} | {judge} | {label} | {part.get('score_type') or ''} |")
    return "\n".join(lines) + "\n\nThe reward of an output is the weighted sum of these scores."


def _results(data: RewardModelCardData) -> str:
    if not data.metrics:
        return ""
    metrics = data.metrics
    gains = {"reward": metrics["reward_gain"], **metrics["component_gain"]}
    lines = ["| | Before | After | Gain | 95 % interval |", "| --- | ---: | ---: | ---: | --- |"]
    for name, gain in gains.items():
        low, high = (_number(end, "+.3f") for end in gain["ci95"])
        before, after = (_number(metrics[side][name]) for side in ("before", "after"))
        lines.append(f"| {name} | {before} | {after} | {_number(gain['mean'], '+.3f')} | {low} to {high} |")
    for name in gains:
        before, after = metrics["before_greedy"][name], metrics["after_greedy"][name]
        change = None if before is None or after is None else after - before
        lines.append(f"| {name}, greedy | {_number(before)} | {_number(after)} | {_number(change, '+.3f')} | |")
    where = f" ({data.held_out})" if data.held_out else ""
    note = (
        f"Means over {metrics['reward_gain']['n']} held-out prompts{where}, decoded before and after with the same "
        "settings and seed; sampled as in training unless it says greedy. Intervals: paired bootstrap over prompts. "
        "They cover the choice of prompts, not the choice of training seed."
    )
    return "\n".join([*lines, "", note])


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _guards(data: RewardModelCardData) -> str:
    if not data.metrics:
        return ""
    lines = ["| What a reward hacker would break | Before | After |", "| --- | ---: | ---: |"]
    for name, pair in data.metrics["guard"].items():
        lines.append(f"| {GUARDS.get(name, name)} | {pair['before']:.3f} | {pair['after']:.3f} |")
    if data.metrics.get("kl") is not None:
        lines.append(f"| KL to the starting model (nats a response) | 0.000 | {data.metrics['kl']:.3f} |")
    return "\n".join(lines)


def _yardsticks(data: RewardModelCardData) -> str:
    if not data.metrics:
        return ""
    sources, best = data.metrics["sources"]["reward"], data.metrics["best_of_16"]["reward"]
    return (
        f"For scale: the sources' own sentences score {_number(sources)}, and the best of 16 samples of the starting "
        f"model {_number(best)}."
    )


def _training(data: RewardModelCardData) -> str:
    parts = []
    if data.metrics:
        minutes = data.metrics["seconds"] / 60
        parts.append(f"{data.metrics['episodes']} episodes in {minutes:.1f} minutes.")
    if data.epoch_rewards:
        parts.append(f"Mean reward by epoch: {', '.join(f'{reward:.3f}' for reward in data.epoch_rewards)}.")
    if data.settings:
        parts.append("Settings: " + ", ".join(f"`{key}={value}`" for key, value in data.settings.items()) + ".")
    return " ".join(parts)


def _sample_rows(data: RewardModelCardData) -> str:
    if not data.samples:
        return ""
    lines = ["| Source | Before | After |", "| --- | --- | --- |"]
    for row in data.samples:
        before, after = (f"{_cell(row[side])} ({row[f'{side}_reward']:+.2f})" for side in ("before", "after"))
        lines.append(f"| {_cell(row['source'])} | {before} | {after} |")
    return f"Held-out prompts 1 to {len(data.samples)}, sampled, with their reward.\n\n" + "\n".join(lines)


def _cell(text: str, limit: int = 400) -> str:
    """`text` for a table cell: one line, pipes and angle brackets harmless."""
    flat = " ".join(text.split())
    flat = flat if len(flat) <= limit else flat[: limit - 4].rstrip() + " ..."
    return flat.replace("|", "\\|").replace("<", "&lt;") or "(nothing)"


def _quickstart(data: RewardModelCardData) -> str:
    length = data.settings.get("response_length", 64)
    prompt = json.dumps(f"{data.prompt_prefix}Your text here.", ensure_ascii=False)
    return f"""```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

name = {json.dumps(data.model_name)}  # this folder, or its id on the Hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForSeq2SeqLM.from_pretrained(name)
inputs = tokenizer({prompt}, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens={length})
print(tokenizer.decode(output[0], skip_special_tokens=True))
```"""


def _reproduce(data: RewardModelCardData) -> str:
    parts = []
    if data.config_file:
        parts.append(f"With [{data.config_file}]({data.config_file}):\n\n")
        parts.append(f"```\ntrl-rewards train --config {data.config_file}\n```\n\n")
    if data.seed is not None:
        parts.append(f"Seed {data.seed}. ")
    if data.versions:
        parts.append("Made with " + ", ".join(f"{name} {version}" for name, version in data.versions.items()) + ".")
    return "".join(parts).strip()


def _limits(data: RewardModelCardData) -> str:
    judges = "the judges above" if data.rewards else "its reward"
    return (
        f"- It was taught what {judges} prefer, mistakes and biases of theirs included; a higher score is not proof "
        "of better text.\n"
        "- Nothing here measures whether an output is true to its source beyond shared words.\n"
        "- One training run with one seed; other seeds end elsewhere."
    )
