"""What a run refuses of its settings and files, beside the trainer's checks, without torch; and its LoRA config."""

import json
import math
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.errors import InputError, check_choice

# Trackers that transformers never lists as installed, though they may be.
_UNLISTED = ("azure_ml", "flyte")
_HOLD_OUT_SHARE = 0.1


def check_decided(config: Any) -> None:
    """Refuses settings of the trainer alone that the recipe decides itself."""
    if config.push_to_hub:
        found = "push_to_hub=True, which uploads before the card and the metrics are written"
        raise InputError("push_to as the way to the Hub", found, "use push_to (--push_to user/name)")
    if config.reward_weights is not None:
        step = "set the weights in MultiClassifierReward, or in the reward file"
        raise InputError("weights inside the one reward of a run", f"reward_weights={config.reward_weights}", step)


def held_out_rows(rows: int, name: str) -> int:
    """How many of the `rows` of a data set without a held-out part are held out; refuses too few rows."""
    count = max(2, math.ceil(_HOLD_OUT_SHARE * rows))
    if rows <= count:
        step = "give eval_dataset (--eval_dataset FILE), or more rows"
        raise InputError(f"more than {count} rows in {name}, so that some can be held out", f"{rows}", step)
    return count


def check_enough_prompts(prompts: int, config: Any, name: str) -> None:
    """Refuses fewer prompts to train on than one rollout takes."""
    if prompts < config.prompts_per_rollout:
        expected = f"at least one rollout of prompts ({config.prompts_per_rollout})"
        step = "lower per_device_train_batch_size or gradient_accumulation_steps, or give more prompts"
        raise InputError(expected, f"{prompts} in {name}, held-out rows not counted", step)


def check_model_folder(folder: str, response_length: int) -> None:
    """Refuses a decoder-only model, a BERT or too few positions, as far as a config.json in `folder` shows it."""
    try:
        config = json.loads(Path(resolve(folder), "config.json").read_text(encoding="utf-8"))
        # Encoder-decoders may lack the key, or end in these names as well, but none is called a BERT.
        names = [] if config.get("is_encoder_decoder") else list(map(str, config.get("architectures") or ()))
        is_bert = not config.get("is_encoder_decoder") and "bert" in str(config.get("model_type"))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return
    if is_bert or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        found = f"{folder} with {', '.join(names) or config['model_type']}"
        step = "pass one such as facebook/bart-base"
        step += "; for decoder-only models use TRL's GRPOTrainer or RLOOTrainer with the same reward"
        raise InputError("an encoder-decoder model", found, step)
    limits = [config.get(key) for key in ("max_decoder_position_embeddings", "max_position_embeddings")]
    room = next((value for value in limits if isinstance(value, int)), None)
    if room is not None and "decoder" not in config and response_length > room:
        expected = f"response_length of at most {room}, the positions of {folder}"
        raise InputError(expected, f"response_length={response_length}", "lower response_length")


def check_installed(trackers: Iterable[str], known: Iterable[str], installed: Iterable[str]) -> None:
    """Refuses trackers that are not `known` to transformers, or not `installed`."""
    for name in trackers:
        check_choice("a tracker in report_to", name, known, "use one of these, or none")
        if name not in (*_UNLISTED, *installed):
            raise InputError(f"the package {name} for report_to", "not installed", f"pip install {name}")


def check_peft() -> None:
    """Refuses an adapter where peft is not installed."""
    if find_spec("peft") is None:
        raise InputError("the package peft for --use_peft", "not installed", 'pip install "peft>=0.21.2"')


def lora_config(r: int, alpha: int, target_modules: list[str] | None) -> Any:
    """peft's `LoraConfig` of rank `r` for a sequence-to-sequence model (that of TRL's flags is for a causal one).

    Updates are multiplied by alpha / r. `target_modules` get an adapter; None: peft's default for the architecture.
    """
    check_peft()
    from peft import LoraConfig

    # No dropout: PPO turns it off.
    return LoraConfig("SEQ_2_SEQ_LM", r=r, lora_alpha=alpha, target_modules=target_modules)


def lora_settings(peft_config: Any) -> dict[str, Any]:
    """The flags that give this adapter; empty without one."""
    if peft_config is None:
        return {}
    modules = peft_config.target_modules
    modules = sorted(modules) if isinstance(modules, set | list) else modules
    ranks = {"lora_r": peft_config.r, "lora_alpha": peft_config.lora_alpha}
    return {"use_peft": True, **ranks, "lora_target_modules": modules}
