"""Which files of a metric's folder go to the Hub as a Space: card, scripts, and what these import, read from source.

Leaves out: what is imported by a name that only exists while it runs (`importlib`).
"""

import ast
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.files import LICENSES, Selection, names_in, place_of
from trl_rewards_plugin.hub.outgoing import UploadFile, read_file
from trl_rewards_plugin.runs.layout import CARD

SPACE_FILES = (CARD, "app.py", "requirements.txt")
SPACE_EXTRAS = ("packages.txt", *LICENSES)


def is_space(folder: Path) -> bool:
    """Whether `folder` is a Space by its README: `sdk:` in the front matter."""
    if not (folder / CARD).is_file():
        return False
    return bool(re.match(r"---\n(?:(?!---).*\n)*?sdk:\s*\w+", read_file(folder, CARD).text))


def select_space(folder: Path) -> Selection:
    """The files of a metric folder that is also a Space; one that is missing, no Python, or a link out is refused."""
    script = f"{folder.resolve().name}.py"
    missing = [name for name in (*SPACE_FILES, script) if not (folder / name).is_file()]
    if missing:
        expected = f"a metric folder with {', '.join(SPACE_FILES)} and {script}"
        step = "give one of the folders under trl_rewards_plugin/metrics"
        raise InputError(expected, f"no {', '.join(missing)}", step)
    names = names_in(folder)
    known = {name for name in (*SPACE_FILES, *SPACE_EXTRAS, script) if name in names}
    files = {name: read_file(folder, name) for name in sorted(known)}
    waiting = ["app.py", script]
    while waiting:
        for name in _imported_files(files[waiting.pop()], names):
            if name not in files:
                files[name] = read_file(folder, name)
                waiting.append(name)
    left_out = {place_of(name, list(files)): "not a file of a Space" for name in names if name not in files}
    return Selection(tuple(files[name] for name in sorted(files)), left_out)


def _imported_files(script: UploadFile, names: Collection[str]) -> list[str]:
    """Those of `names`, files of a folder, that `script`, one of them, imports."""
    try:
        tree = ast.parse(script.text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"Python in {script.name}", str(error), "fix the file") from error
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
            level = node.level if isinstance(node, ast.ImportFrom) else 0
            for alias in node.names:
                found |= dict.fromkeys(_files_of(f"{start}{alias.name}", level, script.name))
    return [name for name in found if name in names]


def _files_of(module: str, level: int, script: str) -> list[str]:
    """Where `a.b` may lie: `a.py`, `a/b.py`, `a/__init__.py` ..., beside the script and, if absolute, at the top."""
    beside = PurePosixPath(script).parents[max(level - 1, 0)] if level <= script.count("/") + 1 else PurePosixPath()
    parts = module.split(".")
    paths = [PurePosixPath(*parts[:count]) for count in range(1, len(parts) + 1)]
    tops = {beside} if level else {beside, PurePosixPath()}
    return [str(top / file) for top in tops for path in paths for file in (f"{path}.py", f"{path}/__init__.py")]
