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
    from trl_rewards_plugin.cards.model_card import write_model_card
    from trl_rewards_plugin.cards.preview import preview_html
    from trl_rewards_plugin.runs.writing import write_text

    arguments = _parser().parse(argv)
    folder, page_file = Path(arguments.run), Path(arguments.preview or "card.html")
    if arguments.preview and (page_file.is_dir() or not page_file.parent.is_dir()):
        found = f"the folder {page_file}" if page_file.is_dir() else f"no folder {page_file.parent}"
        raise InputError("a file for the page, in an existing folder", found, "for example --preview card.html")
    path = write_model_card(folder, overwrite=arguments.overwrite_card)
    print(f"Card: {path}")
    if arguments.preview is None:
        return 0
    page = preview_html(path.read_text(encoding="utf-8"), folder)
    shown = True
    if arguments.preview:
        write_text(page_file, page)
    else:  # in the browser, from a file that outlives this command
        with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="card-", delete=False, encoding="utf-8") as file:
            file.write(page)
        page_file = Path(file.name)
        shown = webbrowser.open(page_file.as_uri())
    print(f"Page: {page_file}" + ("" if shown else " (no browser found: open it in one)"))
    return 0


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
