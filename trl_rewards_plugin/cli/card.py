"""`trl-rewards card RUN`: renders the card of a run folder again, and shows it. Leaves out: what a card says."""

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

    description = "Renders the model card of a finished run again, from the numbers in its folder."
    parser = Parser("trl-rewards card RUN [--preview [FILE.html]] [--overwrite-card]", description=description)
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder: the output_dir of trl-rewards train")
    help_text = "show the card as a page: written to FILE.html, or opened in the browser without one"
    parser.add_argument("--preview", nargs="?", const="", metavar="FILE.html", help=help_text)
    parser.add_argument("--overwrite-card", action="store_true", help="discard edits of RUN/README.md")
    arguments = parser.parse(argv)
    page = Path(arguments.preview) if arguments.preview else None
    if page is not None and (page.is_dir() or not page.parent.is_dir()):
        found = f"the folder {page}" if page.is_dir() else f"no folder {page.parent}"
        raise InputError("a file for the page, in an existing folder", found, "for example --preview card.html")
    card = write_model_card(arguments.run, overwrite=arguments.overwrite_card)
    print(f"Card: {card}")
    if arguments.preview is None:
        return 0
    html, note = preview_html(card.read_text(encoding="utf-8"), arguments.run), ""
    if page is not None:
        write_text(page, html)
    else:  # in the browser, from a file that outlives this command
        with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="card-", delete=False, encoding="utf-8") as file:
            file.write(html)
        page = Path(file.name)
        note = "" if webbrowser.open(page.as_uri()) else " (no browser found: open it in one)"
    print(f"Page: {page}{note}")
    return 0
