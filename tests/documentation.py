"""The code blocks of the README, of the site's pages and of the notebook, with how each is tested.

A comment in the line above a block says so where it is not simply executed:

    <!-- not run: REASON -->            executed by nothing, and why
    <!-- run by tests/FILE.py -->       that test does what the block does; a word on how may follow a colon
    <!-- refused -->                    the command ends with exit code 2
    <!-- compared -->                   text: what the block above printed

Leaves out: executing them (run_documentation.py).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), NOTEBOOK]
SHOWN = ("text", "bibtex")  # for the eye: what something prints, a formula, a citation
_FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, the line it starts in, its language, its code and the comment above it."""

    page: str
    line: int
    language: str
    code: str
    mark: str

    @property
    def name(self) -> str:
        """As in README.md:28."""
        return f"{self.page}:{self.line}"

    @property
    def executed(self) -> bool:
        """Whether the pages' own process executes it."""
        return self.language not in SHOWN and not self.mark.startswith(("not run", "run by"))


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order; of a notebook its code cells, each numbered in place of its line."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
        codes = [(number, cell) for number, cell in enumerate(cells) if cell["cell_type"] == "code"]
        name = page.relative_to(ROOT).as_posix()
        return [Block(name, number, "python", "".join(cell["source"]), "") for number, cell in codes]
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page.relative_to(ROOT).as_posix(),
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            found["code"],
            found["mark"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in PAGES for block in blocks_of(page)]
