"""What the tests of the judges' scripts share: where the scripts lie, and sentences that are good or spoilt."""

import csv
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "examples" / "assets"
GOOD = ["The cat sat on the mat.", "We called the office on Monday.", "It was a great day for all of us."]
BAD = ["Cat the on sat mat the.", "We the called on office.", "Great a day us was it of."]


def write_csv(path: Path, rows: list[tuple[str, ...]], header: str = "text,label") -> Path:
    """A CSV file of these rows below the names of their columns."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])
    return path
