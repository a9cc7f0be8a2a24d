"""`trl-rewards report RUN [RUN ...]`: runs as one HTML page. Leaves out: the page itself (`report/`)."""

from collections.abc import Sequence
from pathlib import Path

from trl_rewards_plugin.cli.flags import Parser
from trl_rewards_plugin.errors import InputError


def main(argv: Sequence[str]) -> int:
    """Writes the page and says where it is; returns the exit code."""
    from trl_rewards_plugin.report.page import write_report

    parser = Parser(
        "trl-rewards report RUN [RUN ...] [--output FILE.html]",
        description="Writes one HTML page of one or more runs, finished or not: curves of reward, components, KL, "
        "entropy and length, scores before and after, the runs' numbers and settings side by side, and outputs by "
        "step. The page needs no network and no other file.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output_dir of trl-rewards train or evaluate")
    help_text = "the page; default: report.html in the run folder, or in this folder for several runs"
    parser.add_argument("--output", metavar="FILE.html", type=Path, help=help_text)
    arguments = parser.parse(argv)
    if arguments.output is not None and arguments.output.is_dir():
        step = "give --output a name such as report.html"
        raise InputError("a file for the page", f"the folder {arguments.output}", step)
    print(f"Page: {write_report(arguments.runs, arguments.output)}")
    return 0
