"""The card's data from a run folder. Leaves out: rendering (`render.py`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trl_rewards_plugin.assets import is_bundled
from trl_rewards_plugin.cards.card_data import RewardModelCardData, our_algorithm
from trl_rewards_plugin.runs.layout import CONFIG, REWARD_CURVE, REWARD_KL
from trl_rewards_plugin.runs.public_names import public_value, shown_name
from trl_rewards_plugin.runs.read import read_finished_run, read_settings
from trl_rewards_plugin.text import is_hub_id

_Row = TypeVar("_Row")
SAMPLES = 3
PROMPTS_SHOWN = 2
WITHOUT_TEXTS: dict[str, Any] = {"prompts": (), "samples": (), "gains": (), "losses": ()} | dict.fromkeys(
    ("rows_better", "rows_worse")
)
"""Fields of a card that shows no text of its run."""
# Keys of config.yaml that have fields of their own.
OWN_FIELDS = (
    "preset", "model", "reward", "held_out_reward", "dataset", "eval_dataset", "text_column", "prompt_prefix", "seed",
)  # fmt: skip
# Keys of `made_of` that are fields of the card.
_RECORDED = (
    "rewards", "held_out_rewards", "aggregation", "disagreement_coef", "train_rows", "held_out", "epoch_rewards",
    "hardware", "precision", "energy", "versions", "commit", "license", "language",
)  # fmt: skip
# The Trainer's bookkeeping, which does not affect the model.
_BOOKKEEPING = (
    "save_", "log_", "logging_", "eval_", "report_to", "hub_", "push_to_hub", "per_device_eval_batch_size",
    "num_completions_to_print",
)  # fmt: skip


def card_data_from_folder(folder: Path) -> RewardModelCardData:
    """What a finished run's files say."""
    run = read_finished_run(folder)
    config = {key: shown_name(value) for key, value in run.settings.items()}
    made_of = config.pop("made_of", {})
    named = {key: config.pop(key, None) for key in OWN_FIELDS}
    prefix = named["prompt_prefix"] or ""
    rows = [_card_row(row) for row in run.held_out]
    changed = sorted(filter(_gain, rows), key=_gain)
    better, worse = ([row for row in changed if sign * _gain(row) > 0] for sign in (1, -1))
    return RewardModelCardData(
        model_name=made_of.get("push_to") or run.name,
        base_model=named["model"],
        algorithm=our_algorithm(config.get("objective")),
        adapter=(folder / "adapter_config.json").is_file(),
        dataset=named["dataset"],
        prompts=[row["prompt"] for row in rows[:PROMPTS_SHOWN] if row.get("prompt")],
        prompt_prefix=prefix,
        metrics=run.metrics,
        samples=rows[:SAMPLES],
        gains=better[: -SAMPLES - 1 : -1],
        losses=worse[:SAMPLES],
        rows_better=len(better) or None,
        rows_worse=len(worse) or None,
        curve=REWARD_CURVE if (folder / REWARD_CURVE).is_file() else None,
        reward_kl=REWARD_KL if (folder / REWARD_KL).is_file() else None,
        settings=public_settings(config),
        max_new_tokens=config.get("response_length"),
        seed=named["seed"],
        config_file=CONFIG if named["model"] and named["reward"] and named["dataset"] else None,
        pipeline_tag=task_of(prefix),
        **{key: made_of[key] for key in _RECORDED if made_of.get(key) is not None},
    )


def has_own_texts(folder: Path) -> bool:
    """Whether the run's prompts are the user's own: neither a Hub data set nor bundled."""
    config = read_settings(folder)
    names = [config.get("dataset"), config.get("eval_dataset") or config.get("dataset")]
    return not all(is_hub_id(name) or is_bundled(name) for name in names)


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` for a reader: without the Trainer's bookkeeping, paths of this machine, and what has no effect."""
    left_out = (*_BOOKKEEPING, "num_train_epochs") if settings.get("max_steps", 0) > 0 else _BOOKKEEPING
    kept = {key: value for key, value in settings.items() if value is not None and not key.startswith(left_out)}
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
    # NaN differs from itself.
    return {key: row[key] if row[key] == row[key] else None for key in wanted if key in row}


def _gain(row: Mapping[str, Any]) -> float:
    """Rise of the reward; 0 where one side was not scored."""
    before, after = row["before_reward"], row["after_reward"]
    return 0.0 if before is None or after is None else after - before


def picked(rows: Sequence[_Row], count: int) -> list[_Row]:
    """At most `count` rows, evenly spaced, first and last among them."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (count - 1))] for index in range(count)]
