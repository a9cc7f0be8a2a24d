"""`trl-rewards card`, `report` and `push`: what is done with a run folder once there is one (`cards/`, `report/`)."""

import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.cli.flags import Parser
from trl_rewards_plugin.errors import InputError, check_choice
from trl_rewards_plugin.text import printable


def card(argv: Sequence[str]) -> int:
    """Writes RUN/README.md again and optionally its page; returns the exit code."""
    from trl_rewards_plugin.cards.model_card import write_model_card
    from trl_rewards_plugin.cards.preview import preview_html

    description = "Renders the model card of a finished run again, from the numbers in its folder."
    parser = Parser("trl-rewards card RUN [--preview [FILE.html]] [--overwrite-card]", description=description)
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder: the output_dir of trl-rewards train")
    help_text = "show the card as a page: written to FILE.html, or opened in the browser without one"
    parser.add_argument("--preview", nargs="?", const="", metavar="FILE.html", help=help_text)
    parser.add_argument("--overwrite-card", action="store_true", help="discard edits of RUN/README.md")
    arguments = parser.parse(argv)
    page = Path(arguments.preview) if arguments.preview else None
    if page is not None:
        _check_page(page, "--preview a name such as card.html")
        if not page.parent.is_dir():
            step = "for example --preview card.html"
            raise InputError("a file for the page, in an existing folder", f"no folder {page.parent}", step)
    written = write_model_card(arguments.run, overwrite=arguments.overwrite_card)
    print(f"Card: {written}")
    if arguments.preview is None:
        return 0
    html, note = preview_html(written.read_text(encoding="utf-8"), arguments.run), ""
    if page is not None:
        write_text(page, html)
    else:  # in the browser, from a file that outlives this command
        with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="card-", delete=False, encoding="utf-8") as file:
            file.write(html)
        page = Path(file.name)
        note = "" if webbrowser.open(page.as_uri()) else " (no browser found: open it in one)"
    print(f"Page: {page}{note}")
    return 0


def _check_page(path: Path, example: str) -> None:
    """Refuses a folder, and an ending that would promise other contents than HTML."""
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        found = f"the folder {path}" if path.is_dir() else str(path)
        raise InputError("a file that ends in .html or .htm for the page", found, f"give {example}")


def report(argv: Sequence[str]) -> int:
    """Writes the page of one or more runs and says where it is; returns the exit code."""
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
    if arguments.output is not None:
        _check_page(arguments.output, "--output a name such as report.html")
    print(f"Page: {write_report(arguments.runs, arguments.output)}")
    return 0


def push(argv: Sequence[str]) -> int:
    """Uploads a run folder, or a metric as a Space; returns the exit code."""
    from trl_rewards_plugin.cards.folder_push import plan_push, push_to_hub

    parser = Parser(
        "trl-rewards push RUN user/name [options]\n       trl-rewards push --metric NAME user/name [options]",
        description="Uploads a run's model with its card, or a metric as a Space, in one commit. Repeating it "
        "uploads nothing. Log in first: `hf auth login`, or HF_TOKEN.",
    )
    parser.add_argument("names", nargs="*", metavar="RUN user/name", help="run folder, then repository (owner/name)")
    parser.add_argument("--metric", metavar="NAME", help="push this metric, or that in this folder, as a Space")
    parser.add_argument(
        "--private", action="store_true", default=None, help="new repositories are private; a public one is refused"
    )
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to, created if it does not exist")
    help_text = "first line of the commit; default: what changed"
    parser.add_argument("--message", dest="commit_message", metavar="TEXT", help=help_text)
    help_text = "upload the held-out prompts and outputs too, even if the prompts are your own"
    parser.add_argument("--include-completions", action="store_true", help=help_text)
    parser.add_argument("--overwrite-card", action="store_true", help="replace a card that was edited on the Hub")
    parser.add_argument("--dry-run", action="store_true", help="print the files' names and the card, send nothing")
    options = vars(parser.parse(argv))
    folder, repo_id = _what_and_where(options.pop("names"), options.pop("metric"))
    if options.pop("dry_run"):
        what = {key: options[key] for key in ("revision", "include_completions")}
        plan = plan_push(folder, repo_id, **what)
        owner = "" if "/" in repo_id else f" {repo_id} would be a repository of whoever is logged in."
        print(f"{plan.format()}\n\nREADME.md:\n{printable(plan.card)}\nDry run: nothing was sent.{owner}")
        return 0
    # Flushed: in a pipe the list must not come after the progress bar, which is on standard error.
    push_to_hub(folder, repo_id, echo=lambda text: print(text, flush=True), **options)
    return 0


def _what_and_where(names: Sequence[str], metric: str | None) -> tuple[Path, str]:
    """The folder and the repository: RUN user/name, or user/name alone with --metric."""
    if len(names) != (2 if metric is None else 1):
        if metric is not None:
            step = "trl-rewards push --metric NAME user/name"
            raise InputError("one repository with --metric", " ".join(names) or "none", step)
        step = "trl-rewards push RUN user/name; flags such as --overwrite-card take no value"
        raise InputError("a run folder and a repository", " ".join(names) or "nothing", step)
    if metric is None:
        folder = Path(names[0])
        if not folder.is_dir():
            found = f"{names[0]!r}, which is not a folder"
            raise InputError("a run folder", found, "give the output_dir of a run first")
    elif Path(metric).is_dir():
        folder = Path(metric)
        if not (folder / "app.py").is_file():
            step = "see docs/how-to/metric-space.md"
            raise InputError("the folder of a metric, with its app.py", f"no app.py in {metric}", step)
    else:
        root = Path(__file__).parents[1] / "metrics"
        known = sorted(path.parent.name for place in (root, Path()) for path in place.glob("*/app.py"))
        check_choice("metric", metric, known, "give one of these, or its folder")
        folder = root / metric
    return folder, names[-1]
