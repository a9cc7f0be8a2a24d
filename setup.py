"""The README as PyPI shows it: its links and pictures lead to the repository. All else is in pyproject.toml."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
LINK = re.compile(r'(\]\(|(?:href|src)=")(?!https?:|mailto:|#)([^)"#]+)')


def absolute(readme: str, repository: str) -> str:
    """`readme` with every relative link on the main branch of a repository on GitHub, pictures as their bytes."""

    def lead(link: re.Match[str]) -> str:
        # By the name alone: a wheel is built from the sdist, which lacks most of them.
        kind = {"": "tree", ".png": "raw"}.get(Path(link[2]).suffix, "blob")
        return f"{link[1]}{repository}/{kind}/main/{link[2]}"

    return LINK.sub(lead, readme)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=absolute((ROOT / "README.md").read_text(encoding="utf-8"), project["urls"]["Repository"]),
        long_description_content_type="text/markdown",
    )
