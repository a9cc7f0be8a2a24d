"""Imports point one way through the house: recipes -> ppo, rewards, metrics, hub; nobody imports the command line."""

import ast
from pathlib import Path

import pytest

import trl_rewards_plugin

ROOT = Path(trl_rewards_plugin.__file__).parent
# Folder -> what its files may import of this package, themselves aside; what lies at the top is open to all.
MAY_IMPORT = {
    "rewards": set(),
    "metrics": {"rewards"},
    "hub": set(),
    "ppo": {"hub"},
    "recipes": {"ppo", "rewards", "metrics", "hub"},
}


def imported_folders(file):
    """Folders of the package that `file` imports from, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    parts = [name.split(".") for name in names if name.startswith("trl_rewards_plugin.")]
    return {part[1] for part in parts if (ROOT / part[1]).is_dir() and part[1] != "assets"}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_arrows_point_one_way(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {
        f"{file.relative_to(ROOT)} imports {sorted(found)}"
        for file in files
        if (found := imported_folders(file) - MAY_IMPORT[folder] - {folder})
    }
    assert not wrong
