"""What `config.yaml` of a run folder holds: enough to do the same run again, and what it was made of.

Leaves out: writing the file (`run_folder.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trl_rewards_plugin.recipes.run_presets import PRESETS
from trl_rewards_plugin.runs import facts
from trl_rewards_plugin.runs.formula import WEIGHTED_SUM
from trl_rewards_plugin.runs.public_names import public_name, public_part
from trl_rewards_plugin.runs.settings import chosen_fields


def configuration(given: Mapping[str, Any], args: Any, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """The run as `trl-rewards train --config config.yaml` reads it.

    Args:
        given: Arguments of the recipe; those that are None are left out.
        args: The `Seq2SeqPPOConfig`.
        made_of: For the reader; the command skips it. What is empty is left out.
    """
    values = {key: value for key, value in given.items() if value is not None}
    # Whatever some preset sets is written even at its default: the file is read on top of a preset.
    values |= chosen_fields(args, {key for preset in PRESETS.values() for key in preset.config})
    told = {**made_of, "versions": facts.versions(), "commit": facts.commit()}
    return values | {"made_of": {key: value for key, value in told.items() if value}}


def describe_reward(reward: Any) -> list[dict[str, Any]]:
    """One dict a component, with at least `name` and `weight`."""
    if hasattr(reward, "describe"):
        return [dict(part) for part in reward.describe()]
    return [{"name": getattr(reward, "__name__", type(reward).__name__), "weight": 1.0}]


def told_reward(reward: Any) -> dict[str, Any]:
    """For `made_of`: `rewards`, each as it is described but without this machine's paths, and `aggregation`."""
    return {
        "rewards": [public_part(part) for part in describe_reward(reward)],
        "aggregation": aggregation_of(reward),
    }


def aggregation_of(reward: Any) -> str | None:
    """How a combination's components become one number, where that is no weighted sum."""
    found = getattr(reward, "aggregation", WEIGHTED_SUM)
    return None if found == WEIGHTED_SUM else found


def given_name(given: Any) -> str | None:
    """What was given by name, as another machine can read it; None for an object."""
    return public_name(given) if isinstance(given, str | Path) else None
