"""Printing that cannot undo the work beside it: a reader who left, a full disk or an ASCII terminal stop no run.

Leaves out: what is printed; and rows that are a command's result, whose loss must be noticed.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from trl_rewards_plugin.text import printable


def say(text: str) -> None:
    """Prints at once, without control characters: in a pipe the plan must not come after the progress bar."""
    with patient_output():
        print(printable(text), flush=True)


@contextlib.contextmanager
def patient_output() -> Iterator[None]:
    """Makes standard output and standard error patient (see `_PatientStream`) until the block ends."""
    before: tuple[Any, Any] = sys.stdout, sys.stderr
    streams = [None if stream is None else _PatientStream(stream) for stream in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in filter(None, streams):
            stream.flush()
        sys.stdout, sys.stderr = before


def silence_libraries() -> None:
    """Leaves the screen to a command: no warnings, logs and bars of libraries, unless the user asked for them."""
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


@contextlib.contextmanager
def loading_quietly() -> Iterator[None]:
    """Hides progress bars of model loading, not of downloads, inside the block, by the rule of `silence_libraries`."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    asked_for = {"TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"} & os.environ.keys()
    if asked_for or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    downloads_hidden = are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # and the Hub's, of downloads
    if not downloads_hidden:
        enable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        if downloads_hidden:
            disable_progress_bars()


class _PatientStream:
    """`stream`, but what its encoding lacks is escaped, and from the first failed write on all is dropped."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            code = self._stream.encoding
            self.write(text.encode(code, "backslashreplace").decode(code))
        except (OSError, ValueError):  # ValueError: a closed file
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        """Leads the descriptor into the void, so that neither Python's buffer nor a child process fails on it."""
        if self._is_lost:
            return
        self._is_lost = True
        with contextlib.suppress(OSError, ValueError):
            void = os.open(os.devnull, os.O_WRONLY)
            os.dup2(void, self._stream.fileno())
            os.close(void)
