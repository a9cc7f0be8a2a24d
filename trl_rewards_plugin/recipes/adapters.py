"""LoRA for encoder-decoders with TRL's flags. Leaves out: other adapters, which are passed as a peft config."""

from importlib.util import find_spec
from typing import Any

from trl_rewards_plugin.errors import InputError


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
    return {
        "use_peft": True,
        "lora_r": peft_config.r,
        "lora_alpha": peft_config.lora_alpha,
        "lora_target_modules": sorted(modules) if isinstance(modules, set | list) else modules,
    }
