"""The parser of the subcommands that take few options: both spellings of a flag, errors in the package's words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from trl_rewards_plugin.errors import InputError, suggestion


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes `--dry_run` for `--dry-run` and refuses what it does not know with a hint."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing two screens of usage."""
        raise InputError("options that fit", message, f"see {self.prog} --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The options in `argv`.

        Raises:
            InputError: an unknown option, or a value that does not fit.
        """
        values, unknown = self.parse_known_intermixed_args([_dashed(argument) for argument in argv])
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            step = suggestion(unknown[0].partition("=")[0], known, f"see {self.prog} --help", "{}")
            raise InputError(f"options of {self.prog}", " ".join(unknown), step)
        return values


def _dashed(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument
