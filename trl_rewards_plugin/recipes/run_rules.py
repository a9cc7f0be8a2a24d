"""What a run refuses of its settings alone; needs no torch. Leaves out: what the trainer refuses (ppo/checks/)."""

from collections.abc import Iterable
from typing import Any

from trl_rewards_plugin.errors import InputError, check_choice

# Trackers that transformers never lists as installed, though they may be.
_UNLISTED = ("azure_ml", "flyte")


def check_decided(config: Any) -> None:
    """Refuses settings of the trainer alone that the recipe decides itself."""
    if config.push_to_hub:
        found = "push_to_hub=True, which uploads before the card and the metrics are written"
        raise InputError("push_to as the way to the Hub", found, "use push_to (--push_to user/name)")
    if config.reward_weights is not None:
        step = "set the weights in MultiClassifierReward, or in the reward file"
        raise InputError("weights inside the one reward of a run", f"reward_weights={config.reward_weights}", step)


def check_installed(trackers: Iterable[str], known: Iterable[str], installed: Iterable[str]) -> None:
    """Refuses trackers that are not `known` to transformers, or not `installed`."""
    for name in trackers:
        check_choice("a tracker in report_to", name, known, "use one of these, or none")
        if name not in (*_UNLISTED, *installed):
            raise InputError(f"the package {name} for report_to", "not installed", f"pip install {name}")
