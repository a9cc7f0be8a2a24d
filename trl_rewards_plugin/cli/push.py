"""`trl-rewards push RUN user/name`: a run folder, or a metric as a Space. Leaves out: the upload (`hub/upload.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from trl_rewards_plugin.cli.flags import Parser
from trl_rewards_plugin.errors import InputError, check_choice
from trl_rewards_plugin.text import printable


def main(argv: Sequence[str]) -> int:
    """Uploads as the flags say; returns the exit code."""
    from trl_rewards_plugin.cards.folder_push import plan_push, push_to_hub

    arguments = _parser().parse(argv)
    folder, repo_id = _what_and_where(arguments)
    shared = {"revision": arguments.revision, "include_completions": arguments.include_completions}
    if arguments.dry_run:
        plan = plan_push(folder, repo_id, **shared)
        owner = "" if "/" in repo_id else f" {repo_id} would be a repository of whoever is logged in."
        print(f"{plan.format()}\n\nREADME.md:\n{printable(plan.card)}\nDry run: nothing was sent.{owner}")
        return 0
    push_to_hub(
        folder,
        repo_id,
        private=arguments.private or None,
        create_pr=arguments.create_pr,
        overwrite_card=arguments.overwrite_card,
        commit_message=arguments.message,
        # Flushed: in a pipe the list must not come after the progress bar, which is on standard error.
        echo=lambda text: print(text, flush=True),
        **shared,
    )
    return 0


def _what_and_where(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The folder and the repository: RUN user/name, or user/name alone with --metric."""
    if arguments.metric is not None:
        if len(arguments.names) != 1:
            step = "trl-rewards push --metric NAME user/name"
            raise InputError("one repository with --metric", " ".join(arguments.names) or "none", step)
        if Path(arguments.metric).is_dir():
            if not (Path(arguments.metric) / "app.py").is_file():
                found = f"no app.py in {arguments.metric}"
                raise InputError("the folder of a metric, with its app.py", found, "see docs/how-to/metric-space.md")
            return Path(arguments.metric), arguments.names[0]
        root = Path(__file__).parents[1] / "metrics"
        known = sorted(path.parent.name for place in (root, Path()) for path in place.glob("*/app.py"))
        check_choice("metric", arguments.metric, known, "give one of these, or its folder")
        return root / arguments.metric, arguments.names[0]
    if len(arguments.names) != 2:
        step = "trl-rewards push RUN user/name; flags such as --overwrite-card take no value"
        raise InputError("a run folder and a repository", " ".join(arguments.names) or "nothing", step)
    folder, repo_id = arguments.names
    if not Path(folder).is_dir():
        raise InputError("a run folder", f"{folder!r}, which is not a folder", "give the output_dir of a run first")
    return Path(folder), repo_id


def _parser() -> Parser:
    parser = Parser(
        "trl-rewards push RUN user/name [options]\n       trl-rewards push --metric NAME user/name [options]",
        description="Uploads a run's model with its card, or a metric as a Space, in one commit. Repeating it "
        "uploads nothing. Log in first: `hf auth login`, or HF_TOKEN.",
    )
    parser.add_argument("names", nargs="*", metavar="RUN user/name", help="run folder, then repository (owner/name)")
    parser.add_argument("--metric", metavar="NAME", help="push this metric, or that in this folder, as a Space")
    parser.add_argument("--private", action="store_true", help="new repositories are private; a public one is refused")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to, created if it does not exist")
    parser.add_argument("--message", metavar="TEXT", help="first line of the commit; default: what changed")
    help_text = "upload the held-out prompts and outputs too, even if the prompts are your own"
    parser.add_argument("--include-completions", action="store_true", help=help_text)
    parser.add_argument("--overwrite-card", action="store_true", help="replace a card that was edited on the Hub")
    parser.add_argument("--dry-run", action="store_true", help="print the files' names and the card, send nothing")
    return parser
