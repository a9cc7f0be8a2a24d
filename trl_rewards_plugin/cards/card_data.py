"""The contents of a card, as data: from a run folder, or from a trainer, ours or one of TRL's own (GRPO, DPO ...).

Leaves out of a trainer: results on held-out prompts, which only a run folder has, and texts of the data set, which may
be private.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trl_rewards_plugin.assets import is_bundled
from trl_rewards_plugin.runs import record
from trl_rewards_plugin.runs.layout import CONFIG, REWARD_CURVE, REWARD_KL, REWARDS
from trl_rewards_plugin.runs.public_names import GIVEN_BY_NAME, files_named, public_value, shown_name
from trl_rewards_plugin.runs.read import read_finished_run, read_settings
from trl_rewards_plugin.runs.reward_description import WEIGHTED_SUM, public_parts
from trl_rewards_plugin.text import is_hub_id
from trl_rewards_plugin.yaml_text import read_yaml

_Row = TypeVar("_Row")
_SAMPLES, _PROMPTS, _LOG_ROWS = 3, 2, 8
_ALGORITHMS = {"raft": "RAFT", "dpo": "DPO (online)"}  # by objective; PPO where a run does not say
# Task on the Hub: text2text-generation is deprecated there, only T5's prefixes identify its successors.
_TASKS = {"summarize": "summarization", "translate": "translation"}
# Keys of config.yaml that have fields of their own.
_OWN_FIELDS = (
    "preset", "model", "reward", "held_out_reward", "dataset", "eval_dataset", "text_column", "prompt_prefix", "seed",
)  # fmt: skip
# Keys of `made_of` that are fields of the card.
_RECORDED = (
    "rewards", "held_out_rewards", "aggregation", "disagreement_coef", "train_rows", "held_out", "held_out_warning",
    "epoch_rewards", "hardware", "precision", "energy", "versions", "commit", "license", "language",
)  # fmt: skip
# The Trainer's bookkeeping, which does not affect the model.
_BOOKKEEPING = (
    "save_", "log_", "logging_", "eval_", "report_to", "hub_", "push_to_hub", "per_device_eval_batch_size",
    "num_completions_to_print",
)  # fmt: skip
# Key in the log -> heading on the card; ours, GRPO's and RLOO's, DPO's.
_LOGGED = {
    "objective/scores": "Reward", "reward": "Reward", "objective/kl": "KL", "kl": "KL",
    "rewards/margins": "Reward margin", "rewards/accuracies": "Preference accuracy", "loss": "Loss",
}  # fmt: skip
_SCALE = re.compile(r"(?P<place>eval_(.*_)?scale/)(?P<name>.+)/mean")
_HUB_DATA = re.compile(r"hf://datasets/([^@/]+/[^@/]+)@")


@dataclass(frozen=True)
class RewardModelCardData:
    """The contents of a card. What is empty or None is not mentioned.

    Attributes:
        model_name: Title, and the name in the quickstart.
        base_model: The model that was fine-tuned, without paths of this machine; linked if it is a Hub id.
        encoder_decoder: False for a decoder, which continues its prompt.
        chat: Whether the tokenizer has a chat template and the prompts are conversations.
        adapter: Whether the folder holds a PEFT adapter, not a full model.
        algorithm: Such as "GRPO"; ours are "PPO", "RAFT" and "DPO (online)".
        paper: The algorithm's: `title`, `id` (arXiv) and `citation` (BibTeX), each where known.
        rewards: As `reward.describe()` returns them: name, model, label, weight, score_type, revision, pair ...
        held_out_rewards: Likewise, what judged the outputs without being trained on: `held_out_reward` in `metrics`.
        aggregation, disagreement_coef: How they are combined; see `MultiClassifierReward`.
        evaluation_scales: Name of a running z-score -> mean and standard deviation that the evaluations used.
        dataset: Where the prompts come from; linked if it is a Hub id.
        prompts: A few prompts, as the model reads them. Only what may be public.
        prompt_prefix: Prepended to every prompt.
        held_out: Description of the rows that the numbers, `metrics.json`, are from.
        held_out_warning: How many of the held-out prompts training saw.
        samples: Rows with `source`, `before`, `after`, `before_reward`, `after_reward`: the first of the held-out set.
        gains, losses: Likewise, where the reward rose most, and fell most.
        rows_better, rows_worse: Number of held-out outputs whose reward rose, and fell.
        log: Rows of the training log: `step`, and heading -> number; for a run without a curve.
        curve, reward_kl: File names of the reward curve, and of reward against KL, beside the card.
        settings: Non-default fields of the config.
        max_prompt_length: Tokens of a prompt that the model read in training, if known.
        config_file: File name beside the card that `trl-rewards train --config` reads.
        files_elsewhere: What that file and the reward files beside it name by paths, which are not published.
        precision: What it was computed in, with the gap between sampling and scoring that was measured.
        seconds, energy: How long training took, unless `metrics` says, and `kwh` and `co2_grams` as measured.
        license, language: SPDX id in lower case, and code of the texts' language, if known.
        tags: In addition to those that every card has.
    """

    model_name: str
    base_model: str | None = None
    encoder_decoder: bool = True
    chat: bool = False
    adapter: bool = False
    algorithm: str = "PPO"
    paper: Mapping[str, str] = field(default_factory=dict)
    rewards: Sequence[Mapping[str, Any]] = ()
    held_out_rewards: Sequence[Mapping[str, Any]] = ()
    aggregation: str = WEIGHTED_SUM
    disagreement_coef: float | None = None
    evaluation_scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    dataset: str | None = None
    train_rows: int | None = None
    prompts: Sequence[str] = ()
    prompt_prefix: str = ""
    held_out: str | None = None
    held_out_warning: str | None = None
    metrics: Mapping[str, Any] | None = None
    samples: Sequence[Mapping[str, Any]] = ()
    gains: Sequence[Mapping[str, Any]] = ()
    losses: Sequence[Mapping[str, Any]] = ()
    rows_better: int | None = None
    rows_worse: int | None = None
    epoch_rewards: Sequence[float] = ()
    log: Sequence[Mapping[str, Any]] = ()
    curve: str | None = None
    reward_kl: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_prompt_length: int | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    config_file: str | None = None
    files_elsewhere: Sequence[str] = ()
    hardware: str | None = None
    precision: str | None = None
    seconds: float | None = None
    energy: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    license: str | None = None
    language: str | None = None
    pipeline_tag: str | None = None
    tags: Sequence[str] = ()


def card_data_from_folder(folder: Path) -> RewardModelCardData:
    """What a finished run's files say."""
    run = read_finished_run(folder)
    config = {key: shown_name(value) for key, value in run.settings.items()}
    made_of = config.pop("made_of", {})
    named = {key: config.pop(key, None) for key in _OWN_FIELDS}
    prefix = named["prompt_prefix"] or ""
    shown = ("prompt", "source", "before", "after", "after_greedy", "before_reward", "after_reward")
    # What no reward scored is NaN in the file, which differs from itself, and a dash on the card.
    rows: list[dict[str, Any]] = [
        {key: row[key] if row[key] == row[key] else None for key in shown if key in row} for row in run.held_out
    ]
    changed = sorted(filter(_gain, rows), key=_gain)
    paths = [folder / name for name in REWARDS.values() if (folder / name).is_file()]
    copies = [read_yaml(path, f"{path} as the run left it", "restore or remove that file") for path in paths]
    better, worse = ([row for row in changed if sign * _gain(row) > 0] for sign in (1, -1))
    return RewardModelCardData(
        model_name=made_of.get("push_to") or run.name,
        base_model=named["model"],
        algorithm=_ALGORITHMS.get(config.get("objective", ""), "PPO"),
        adapter=(folder / "adapter_config.json").is_file(),
        dataset=named["dataset"],
        prompts=[row["prompt"] for row in rows[:_PROMPTS] if row.get("prompt")],
        prompt_prefix=prefix,
        metrics=run.metrics,
        samples=rows[:_SAMPLES],
        gains=better[: -_SAMPLES - 1 : -1],
        losses=worse[:_SAMPLES],
        rows_better=len(better) or None,
        rows_worse=len(worse) or None,
        curve=REWARD_CURVE if (folder / REWARD_CURVE).is_file() else None,
        reward_kl=REWARD_KL if (folder / REWARD_KL).is_file() else None,
        settings=_public_settings(config),
        max_prompt_length=run.metrics.get("prompt_cuts", {}).get("limit") if run.metrics else None,
        max_new_tokens=config.get("response_length"),
        seed=named["seed"],
        files_elsewhere=files_named([{key: run.settings.get(key) for key in GIVEN_BY_NAME}, *copies]),
        config_file=CONFIG if named["model"] and named["reward"] and named["dataset"] else None,
        pipeline_tag=next((task for start, task in _TASKS.items() if prefix.lower().startswith(start)), None),
        **{key: made_of[key] for key in _RECORDED if made_of.get(key) is not None},
    )


def has_own_texts(folder: Path) -> bool:
    """Whether the run's prompts are the user's own: neither a Hub data set nor bundled."""
    config = read_settings(folder)
    names = [config.get("dataset"), config.get("eval_dataset") or config.get("dataset")]
    return not all(is_hub_id(name) or is_bundled(name) for name in names)


def _public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` for a reader: without the Trainer's bookkeeping, paths of this machine, and what has no effect."""
    left_out = (*_BOOKKEEPING, "num_train_epochs") if settings.get("max_steps", 0) > 0 else _BOOKKEEPING
    kept = {key: value for key, value in settings.items() if value is not None and not key.startswith(left_out)}
    return {key: public_value(value) for key, value in kept.items()}


def _gain(row: Mapping[str, Any]) -> float:
    """Rise of the reward; 0 where one side was not scored."""
    before, after = row["before_reward"], row["after_reward"]
    return 0.0 if before is None or after is None else after - before


def picked(rows: Sequence[_Row], count: int) -> list[_Row]:
    """At most `count` rows, evenly spaced, first and last among them."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (count - 1))] for index in range(count)]


def card_data_from_trainer(trainer: Any) -> RewardModelCardData:
    """What a trainer alone knows: base model, rewards, settings, data, its log, time and hardware."""
    args, history = trainer.args, trainer.state.log_history
    # Without wrappers of accelerate or DDP; of ours, the policy without its value head.
    ours = hasattr(trainer, "policy_model")
    model = trainer.policy_model if ours else trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "config", None)
    seconds = [row["train_runtime"] for row in history if "train_runtime" in row]
    dataset: Any = getattr(trainer, "train_dataset", None)
    rows = len(dataset) if hasattr(dataset, "__len__") else None
    # As `datasets` recorded the files of a data set that came from the Hub.
    files = getattr(getattr(dataset, "info", None), "download_checksums", None) or {}
    has_prompts = bool(rows) and "prompt" in (getattr(dataset, "column_names", None) or ())
    is_chat = has_prompts and not isinstance(dataset[0]["prompt"], str)
    has_template = bool(getattr(getattr(trainer, "processing_class", None), "chat_template", None))
    rewards, combined = _rewards(trainer)
    log = [
        {"step": row["step"]} | {heading: row[key] for key, heading in _LOGGED.items() if key in row}
        for row in picked([row for row in history if "step" in row and row.keys() & _LOGGED.keys()], _LOG_ROWS)
    ]
    limits = [getattr(args, "max_prompt_length", None), getattr(config, "max_position_embeddings", None)]
    scales = [(row, match) for row in history for key in row if (match := _SCALE.fullmatch(key))]
    return RewardModelCardData(
        model_name=getattr(args, "hub_model_id", None) or Path(str(args.output_dir)).resolve().name,
        base_model=_base_model(model, config),
        encoder_decoder=bool(getattr(config, "is_encoder_decoder", True)),
        chat=has_template and is_chat,
        adapter=hasattr(model, "peft_config"),
        # TRL's trainers name their algorithm and its paper.
        algorithm=getattr(trainer, "_name", None) or _ALGORITHMS.get(getattr(args, "objective", ""), "PPO"),
        paper=getattr(trainer, "_paper", None) or {},
        rewards=rewards,
        **combined,
        # As `MultiClassifierReward` logs them in an evaluation.
        evaluation_scales={
            found["name"]: (row[found[0]], row[f"{found['place']}{found['name']}/std"]) for row, found in scales
        },
        dataset=next((match[1] for name in files if (match := _HUB_DATA.match(name))), None),
        train_rows=rows,
        epoch_rewards=record.epoch_rewards(history),
        log=log,
        settings=_public_settings(record.chosen_fields(args)) if hasattr(args, "use_cpu") else {},
        max_prompt_length=min((limit for limit in limits if limit), default=None),
        max_new_tokens=getattr(args, "response_length", None) or getattr(args, "max_completion_length", None),
        seed=args.seed,
        hardware=record.hardware(args.device, getattr(args, "world_size", 1)) if hasattr(args, "device") else None,
        precision=record.precision(args, history) if hasattr(args, "device") and hasattr(args, "bf16") else None,
        seconds=seconds[-1] if seconds else None,
        energy=record.energy(getattr(getattr(trainer, "callback_handler", None), "callbacks", ())),
        versions=record.versions(),
        commit=record.commit(),
    )


def _base_model(model: Any, config: Any) -> str | None:
    name = str(getattr(config, "_name_or_path", "") or "")
    for adapter in getattr(model, "peft_config", {}).values():
        name = str(adapter.base_model_name_or_path or name)
    return name if is_hub_id(name) and not Path(name).exists() else None


def _rewards(trainer: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The described rewards, and how they are combined."""
    functions: Any = getattr(trainer, "reward_funcs", None) or []
    functions = functions if isinstance(functions, Sequence) else [functions]
    weights = getattr(trainer, "reward_weights", None)
    weights = [1.0] * len(functions) if weights is None else [float(weight) for weight in weights]
    if weights == [1.0]:
        found = {key: getattr(functions[0], key, None) for key in ("aggregation", "disagreement_coef")}
        return public_parts(functions[0]), {key: value for key, value in found.items() if value is not None}
    described = []
    for function, weight in zip(functions, weights, strict=True):
        is_sum = getattr(function, "aggregation", WEIGHTED_SUM) == WEIGHTED_SUM
        parts = public_parts(function) if is_sum else [{"name": function.__name__, "weight": 1.0}]
        described += [part | {"weight": part["weight"] * weight} for part in parts]
    return described, {}
