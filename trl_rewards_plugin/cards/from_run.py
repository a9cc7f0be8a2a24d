"""The card's data from a run folder. Leaves out: rendering (`render.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trl_rewards_plugin.assets import is_bundled
from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.runs.layout import CONFIG, REWARD_CURVE
from trl_rewards_plugin.runs.public_names import public_value
from trl_rewards_plugin.runs.read import read_finished_run, read_settings
from trl_rewards_plugin.runs.reward_description import WEIGHTED_SUM
from trl_rewards_plugin.text import is_hub_id

_Row = TypeVar("_Row")
SAMPLES = 3
PROMPTS_SHOWN = 2
# Keys of config.yaml that have fields of their own.
OWN_FIELDS = (
    "preset", "model", "reward", "dataset", "eval_dataset", "text_column", "prompt_prefix", "seed",
)  # fmt: skip
# The Trainer's bookkeeping, which does not affect the model.
_BOOKKEEPING = (
    "save_", "log_", "logging_", "eval_", "report_to", "hub_", "push_to_hub", "per_device_eval_batch_size",
    "num_completions_to_print",
)  # fmt: skip


def card_data_from_folder(folder: Path, *, show_texts: bool = True) -> RewardModelCardData:
    """Reads a run folder: `config.yaml`, `metrics.json`, `completions.parquet`, the reward curve.

    Args:
        folder: The run folder.
        show_texts: False leaves out prompts and outputs, if they are the user's own (see `has_own_texts`).

    Raises:
        InputError: it holds no finished run, or a file of it is damaged.
    """
    run = read_finished_run(folder, with_texts=show_texts)
    config = dict(run.settings)
    made_of = config.pop("made_of", {})
    named = {key: config.pop(key, None) for key in OWN_FIELDS}
    prefix = named["prompt_prefix"] or ""
    rows = [_card_row(row) for row in run.held_out]
    changed = sorted(filter(_gain, rows), key=_gain)
    return RewardModelCardData(
        model_name=made_of.get("push_to") or run.name,
        base_model=named["model"],
        adapter=(folder / "adapter_config.json").is_file(),
        rewards=made_of.get("rewards", ()),
        aggregation=made_of.get("aggregation", WEIGHTED_SUM),
        dataset=named["dataset"],
        train_rows=made_of.get("train_rows"),
        prompts=[row["prompt"] for row in rows[:PROMPTS_SHOWN] if row.get("prompt")],
        prompt_prefix=prefix,
        held_out=made_of.get("held_out"),
        metrics=run.metrics,
        samples=rows[:SAMPLES],
        gains=[row for row in reversed(changed[-SAMPLES:]) if _gain(row) > 0],
        losses=[row for row in changed[:SAMPLES] if _gain(row) < 0],
        rows_better=sum(_gain(row) > 0 for row in changed) or None,
        rows_worse=sum(_gain(row) < 0 for row in changed) or None,
        epoch_rewards=made_of.get("epoch_rewards", ()),
        curve=REWARD_CURVE if (folder / REWARD_CURVE).is_file() else None,
        settings=public_settings(config),
        max_new_tokens=config.get("response_length"),
        seed=named["seed"],
        config_file=CONFIG if named["model"] and named["reward"] and named["dataset"] else None,
        hardware=made_of.get("hardware"),
        precision=made_of.get("precision"),
        energy=made_of.get("energy", {}),
        versions=made_of.get("versions", {}),
        commit=made_of.get("commit"),
        license=made_of.get("license"),
        language=made_of.get("language"),
        pipeline_tag=task_of(prefix),
    )


def has_own_texts(folder: Path) -> bool:
    """Whether the run's prompts are the user's own: neither a Hub data set nor bundled."""
    config = read_settings(folder)
    names = [config.get("dataset"), config.get("eval_dataset") or config.get("dataset")]
    return not all(is_hub_id(name) or is_bundled(name) for name in names)


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` for a reader: without the Trainer's bookkeeping and paths of this machine."""
    kept = {key: value for key, value in settings.items() if value is not None and not key.startswith(_BOOKKEEPING)}
    return {key: public_value(value) for key, value in kept.items()}


def task_of(prompt_prefix: str) -> str | None:
    """Task on the Hub; text2text-generation is deprecated there, only T5's prefixes identify its successors."""
    for start, task in (("summarize", "summarization"), ("translate", "translation")):
        if prompt_prefix.lower().startswith(start):
            return task
    return None


def _card_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a card shows of a row. What no reward scored is NaN in the file, and a dash on the card."""
    wanted = ("prompt", "source", "before", "after", "after_greedy", "before_reward", "after_reward")
    return {key: None if _is_nan(row[key]) else row[key] for key in wanted if key in row}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _gain(row: Mapping[str, Any]) -> float:
    """Rise of the reward; 0 where one side was not scored."""
    before, after = row["before_reward"], row["after_reward"]
    return 0.0 if before is None or after is None else after - before


def picked(rows: Sequence[_Row], count: int) -> list[_Row]:
    """At most `count` rows, evenly spaced, first and last among them."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (count - 1))] for index in range(count)]
