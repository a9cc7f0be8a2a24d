"""Which Python files beside a script it imports, read from its source without running it.

Leaves out: what is imported by a name that only exists while it runs (`importlib`).
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import PurePosixPath

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.outgoing import UploadFile


def imported_files(script: UploadFile, names: Collection[str]) -> list[str]:
    """Those of `names`, files of a folder, that `script`, one of them, imports.

    Raises:
        InputError: `script` is not Python.
    """
    try:
        tree = ast.parse(script.text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"Python in {script.name}", str(error), "fix the file") from error
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        for module, level in _modules(node):
            found |= dict.fromkeys(_files_of(module, level, script.name))
    return [name for name in found if name in names]


def _modules(node: ast.AST) -> list[tuple[str, int]]:
    """Dotted names that an import statement may load, each with the number of its leading dots."""
    if isinstance(node, ast.Import):
        return [(alias.name, 0) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        start = f"{node.module}." if node.module else ""
        return [(f"{start}{alias.name}", node.level) for alias in node.names]
    return []


def _files_of(module: str, level: int, script: str) -> list[str]:
    """Where `a.b` may lie: `a.py`, `a/b.py`, `a/__init__.py` ..., beside the script and, if absolute, at the top."""
    beside = PurePosixPath(script).parents[max(level - 1, 0)] if level <= script.count("/") + 1 else PurePosixPath()
    parts = module.split(".")
    paths = [PurePosixPath(*parts[:count]) for count in range(1, len(parts) + 1)]
    tops = {beside} if level else {beside, PurePosixPath()}
    return [str(top / file) for top in tops for path in paths for file in (f"{path}.py", f"{path}/__init__.py")]
