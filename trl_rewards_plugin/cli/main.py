"""`trl-rewards`: finds the subcommand by name and hands over. Leaves out: everything heavy, until it is needed."""

import importlib
import sys
from collections.abc import Sequence

from trl_rewards_plugin.errors import InputError, NoAnswerError, check_choice, reward_failure
from trl_rewards_plugin.hub.failures import UploadError
from trl_rewards_plugin.hub.secret_search import without_secrets
from trl_rewards_plugin.terminal import patient_output
from trl_rewards_plugin.text import printable

COMMANDS = {
    "train": "train an encoder-decoder with PPO on the scores of classifiers",
    "report": "write one or more runs as a page of curves, numbers and outputs",
    "evaluate": "evaluate outputs with any metrics, and compare two models",
    "score": "score the texts of a file with a reward",
    "serve": "serve a reward over HTTP, to many trainers at once",
    "card": "render a run's model card again, and show it",
    "push": "upload a run's model, or a metric as a Space, to the Hub",
}
"""Name, which is also that of a function `(argv) -> exit code`, and one line for --help."""
_MODULES = {
    **dict.fromkeys(("card", "push", "report"), "finished_runs"), **dict.fromkeys(("evaluate", "score"), "measure"),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `trl-rewards`; returns its exit code: 2 if input is refused or a reward fails, 1 if Hub or server fails."""
    with patient_output():
        try:
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
        except InputError as error:
            message, code = f"input refused{error}", 2
        except (UploadError, NoAnswerError) as error:
            message, code = f"{'not uploaded' if isinstance(error, UploadError) else 'no answer'}{error}", 1
        except KeyboardInterrupt:
            print(file=sys.stderr)  # behind the terminal's own ^C
            message, code = "interrupted", 130
        except Exception as error:
            if (failure := reward_failure(error)) is None:
                raise
            message, code = f"the reward failed{failure}", 2
        # Without the secrets and control characters that the input had in it.
        print(f"trl-rewards: {printable(without_secrets(message))}", file=sys.stderr)
        return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        commands = "\n".join(f"  {name:<10}{summary}" for name, summary in COMMANDS.items())
        print(f"usage: trl-rewards COMMAND [options]\n\ncommands:\n{commands}\n")
        print("trl-rewards COMMAND --help lists a command's options; --version prints the version.")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from trl_rewards_plugin.runs.record import versions

        print("trl-rewards", versions().get("trl_rewards_plugin", "(not installed: run from a source tree)"))
        return 0
    name, *rest = arguments
    check_choice("command", name, COMMANDS, "see trl-rewards --help")
    module = importlib.import_module(f"trl_rewards_plugin.cli.{_MODULES.get(name, name)}")
    code: int = getattr(module, name)(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
