"""`trl-rewards`: finds the subcommand by name and hands over. Leaves out: everything heavy, until it is needed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from trl_rewards_plugin.errors import InputError, suggestion
from trl_rewards_plugin.hub.failures import UploadError
from trl_rewards_plugin.hub.secret_rules import without_secrets
from trl_rewards_plugin.terminal import patient_output
from trl_rewards_plugin.text import printable

# Name -> module with `main(argv) -> int`, and one line for --help.
COMMANDS = {
    "train": ("trl_rewards_plugin.cli.train", "train an encoder-decoder with PPO on the scores of classifiers"),
    "report": ("trl_rewards_plugin.cli.report", "write one or more runs as a page of curves, numbers and outputs"),
    "evaluate": ("trl_rewards_plugin.cli.evaluate", "evaluate outputs with any metrics, and compare two models"),
    "score": ("trl_rewards_plugin.cli.score", "score the texts of a file with a reward"),
    "serve": ("trl_rewards_plugin.cli.serve", "serve a reward over HTTP, to many trainers at once"),
    "card": ("trl_rewards_plugin.cli.card", "render a run's model card again, and show it"),
    "push": ("trl_rewards_plugin.cli.push", "upload a run's model, or a metric as a Space, to the Hub"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `trl-rewards` and returns its exit code: 2 for refused input, 1 where the Hub or the network failed."""
    with patient_output():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except InputError as error:
        _complain(f"input refused{error}")
        return 2
    except UploadError as error:
        _complain(f"not uploaded{error}")
        return 1
    except KeyboardInterrupt:
        print("\ntrl-rewards: interrupted", file=sys.stderr)
        return 130


def _complain(message: str) -> None:
    """Prints an error, without the secrets and control characters that the input had in it."""
    print(f"trl-rewards: {printable(without_secrets(message))}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"trl-rewards {_version()}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        step = suggestion(name, COMMANDS, "see trl-rewards --help")
        raise InputError(f"a command, one of {', '.join(COMMANDS)}", repr(name), step)
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code


def _usage() -> str:
    commands = "\n".join(f"  {name:<10}{summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: trl-rewards COMMAND [options]\n\n"
        f"commands:\n{commands}\n\n"
        "trl-rewards COMMAND --help lists a command's options; --version prints the version."
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trl_rewards_plugin")
    except PackageNotFoundError:
        return "(not installed: run from a source tree)"


if __name__ == "__main__":
    sys.exit(main())
