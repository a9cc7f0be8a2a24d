"""The card's data from a trainer: ours, or one of TRL's own (GRPO, RLOO, DPO ...), read by what all have.

Leaves out: results on held-out prompts, which only a run folder has, and texts of the data set, which may be private.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_rewards_plugin.cards.card_data import RewardModelCardData, our_algorithm
from trl_rewards_plugin.cards.from_run import picked, public_settings
from trl_rewards_plugin.runs import environment as facts
from trl_rewards_plugin.runs.record import chosen_fields
from trl_rewards_plugin.runs.reward_description import WEIGHTED_SUM, public_parts
from trl_rewards_plugin.text import is_hub_id

LOG_ROWS = 8
# Key in the log -> heading on the card; ours, GRPO's and RLOO's, DPO's.
LOGGED = {
    "objective/scores": "Reward", "reward": "Reward", "objective/kl": "KL", "kl": "KL",
    "rewards/margins": "Reward margin", "rewards/accuracies": "Preference accuracy", "loss": "Loss",
}  # fmt: skip
_SCALE = re.compile(r"(?P<place>eval_(.*_)?scale/)(?P<name>.+)/mean")
_HUB_DATA = re.compile(r"hf://datasets/([^@/]+/[^@/]+)@")


def card_data_from_trainer(trainer: Any) -> RewardModelCardData:
    """What a trainer alone knows: base model, rewards, settings, data, its log, time and hardware."""
    args, history = trainer.args, trainer.state.log_history
    # Without wrappers of accelerate or DDP; of ours, the policy without its value head.
    ours = hasattr(trainer, "policy_model")
    model = trainer.policy_model if ours else trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "config", None)
    seconds = [row["train_runtime"] for row in history if "train_runtime" in row]
    tokenizer = getattr(trainer, "processing_class", None)
    dataset: Any = getattr(trainer, "train_dataset", None)
    rows = len(dataset) if hasattr(dataset, "__len__") else None
    has_prompts = bool(rows) and "prompt" in (getattr(dataset, "column_names", None) or ())
    is_chat = has_prompts and not isinstance(dataset[0]["prompt"], str)
    rewards, combined = _rewards(trainer)
    return RewardModelCardData(
        model_name=getattr(args, "hub_model_id", None) or Path(str(args.output_dir)).resolve().name,
        base_model=_base_model(model, config),
        encoder_decoder=bool(getattr(config, "is_encoder_decoder", True)),
        chat=bool(getattr(tokenizer, "chat_template", None)) and is_chat,
        adapter=hasattr(model, "peft_config"),
        # TRL's trainers name their algorithm and its paper.
        algorithm=getattr(trainer, "_name", None) or our_algorithm(getattr(args, "objective", None)),
        paper=getattr(trainer, "_paper", None) or {},
        rewards=rewards,
        **combined,
        evaluation_scales=_evaluation_scales(history),
        dataset=_dataset_name(dataset),
        train_rows=rows,
        epoch_rewards=[row["epoch_reward"] for row in history if "epoch_reward" in row],
        log=_log(history),
        settings=public_settings(chosen_fields(args)) if hasattr(args, "use_cpu") else {},
        max_new_tokens=getattr(args, "response_length", None) or getattr(args, "max_completion_length", None),
        seed=args.seed,
        hardware=facts.hardware(args.device, getattr(args, "world_size", 1)) if hasattr(args, "device") else None,
        precision=facts.precision(args, history) if hasattr(args, "device") and hasattr(args, "bf16") else None,
        seconds=seconds[-1] if seconds else None,
        energy=facts.energy(getattr(getattr(trainer, "callback_handler", None), "callbacks", ())),
        versions=facts.versions(),
        commit=facts.commit(),
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


def _evaluation_scales(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Name -> mean and standard deviation, as `MultiClassifierReward` logs them in an evaluation."""
    found: dict[str, tuple[float, float]] = {}
    for row in history:
        for key, mean in row.items():
            if match := _SCALE.fullmatch(key):
                found[match["name"]] = (mean, row[f"{match['place']}{match['name']}/std"])
    return found


def _dataset_name(dataset: Any) -> str | None:
    """owner/name of a data set that came from the Hub, as `datasets` recorded its files."""
    files: Mapping[str, Any] = getattr(getattr(dataset, "info", None), "download_checksums", None) or {}
    found = [match[1] for name in files if (match := _HUB_DATA.match(name))]
    return found[0] if found else None


def _log(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [row for row in history if "step" in row and row.keys() & LOGGED.keys()]
    shown = picked(rows, LOG_ROWS)
    return [{"step": row["step"]} | {name: row[key] for key, name in LOGGED.items() if key in row} for row in shown]
