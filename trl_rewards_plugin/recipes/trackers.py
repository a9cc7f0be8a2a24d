"""Whether the trackers that `report_to` names can be written to. Leaves out: writing, which the host does."""

from __future__ import annotations

from collections.abc import Sequence

from trl_rewards_plugin.errors import InputError, did_you_mean

# The host's list of what is installed lacks these, though they may be.
_UNLISTED = ("azure_ml", "flyte")


def check_trackers(names: Sequence[str]) -> None:
    """Refuses, before anything is loaded, what the host would refuse after it.

    Raises:
        InputError: an unknown tracker, or one that is not installed.
    """
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            step = f"{did_you_mean(name, INTEGRATION_TO_CALLBACK)}use one of these, or none"
            raise InputError(f"trackers in report_to, of {', '.join(INTEGRATION_TO_CALLBACK)}", repr(name), step)
        if name not in (*_UNLISTED, *get_available_reporting_integrations()):
            raise InputError(f"the package {name}, to which report_to writes", "not installed", f"pip install {name}")
