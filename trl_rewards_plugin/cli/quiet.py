"""Leaves the screen to a command's own output. Leaves out: what the user set, which stays in force."""

from __future__ import annotations

import os
import sys
import warnings


def silence_libraries() -> None:
    """Hides warnings, and the logs and progress bars of transformers and datasets, in this process."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
    if "DATASETS_VERBOSITY" not in os.environ:
        import datasets

        datasets.utils.logging.set_verbosity_error()
        datasets.disable_progress_bars()
