"""`trl-rewards card RUN`: renders the card of a run folder again, and shows it. Leaves out: what a card says."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from trl_rewards_plugin.cli.flags import Parser
from trl_rewards_plugin.errors import InputError


def main(argv: Sequence[str]) -> int:
    """Writes RUN/README.md and optionally its page; returns the exit code."""
    from trl_rewards_plugin.atomic import write_text
    from trl_rewards_plugin.cards.model_card import write_model_card
    from trl_rewards_plugin.cards.preview import preview_html

    arguments = _parser().parse(argv)
    folder = Path(arguments.run)
    if arguments.preview:
        _check_place(Path(arguments.preview))
    path = write_model_card(folder, overwrite=arguments.overwrite_card)
    print(f"Card: {path}")
    if arguments.preview is not None:
        page = preview_html(path.read_text(encoding="utf-8"), folder)
        if arguments.preview:
            write_text(Path(arguments.preview), page)
            print(f"Page: {arguments.preview}")
        else:
            _show(page)
    return 0


def _check_place(page: Path) -> None:
    """Refuses a page that could not be written, before anything is."""
    if page.is_dir() or not page.parent.is_dir():
        found = f"the folder {page}" if page.is_dir() else f"no folder {page.parent}"
        raise InputError("a file for the page, in an existing folder", found, "for example --preview card.html")


def _show(page: str) -> None:
    """Opens the page in the browser, from a file that outlives this command; prints its path."""
    with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="card-", delete=False, encoding="utf-8") as file:
        file.write(page)
    shown = webbrowser.open(Path(file.name).as_uri())
    print(f"Page: {file.name}" + ("" if shown else " (no browser found: open it in one)"))


def _parser() -> Parser:
    parser = Parser(
        prog="trl-rewards card",
        description="Renders the model card of a finished run again, from the numbers in its folder.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="run folder: the output_dir of trl-rewards train")
    parser.add_argument(
        "--preview",
        nargs="?",
        const="",
        metavar="FILE.html",
        help="show the card as a page: written to FILE.html, or opened in the browser without one",
    )
    parser.add_argument("--overwrite-card", action="store_true", help="discard edits of RUN/README.md")
    return parser
