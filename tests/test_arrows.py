"""The house of CONTRIBUTING.md as a test: which room may import which, and how large a room, file or function gets."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import trl_rewards_plugin

ROOT = Path(trl_rewards_plugin.__file__).parent
GROUND = {"text", "options", "errors", "places", "atomic", "assets", "rows", "terminal", "yaml_text", "preset_table"}
# Room, or module at the top -> what it may import beside itself. Later ones stand above earlier ones.
MAY_IMPORT = {
    "text": set(),
    "errors": set(),
    "places": {"errors", "text"},
    "atomic": {"errors"},
    "assets": {"errors"},
    "options": set(),
    "rows": {"errors", "options", "places"},
    "terminal": {"text"},
    "yaml_text": {"errors"},
    "preset_table": {"errors"},
    "runs": GROUND,
    "rewards": GROUND,
    "charts": GROUND | {"runs"},
    "metrics": GROUND | {"rewards"},
    "pipelines": GROUND,
    "hub": GROUND | {"runs"},
    "cards": GROUND | {"runs", "charts", "hub"},
    "scoring": GROUND | {"runs", "rewards"},
    "serving": GROUND | {"rewards"},
    "ppo": GROUND | {"runs", "charts", "cards", "metrics"},
    "recipes": GROUND | {"runs", "charts", "cards", "hub", "rewards", "metrics", "pipelines", "ppo"},
    "report": GROUND | {"runs", "rewards", "charts", "cards", "metrics", "recipes"},
    "cli": GROUND | {"runs", "cards", "hub", "rewards", "metrics", "scoring", "serving", "ppo", "recipes", "report"},
}
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imported_modules(name):
    """The package's modules that `name` imports, inside functions too."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    modules = {module if module in FILES else module.rpartition(".")[0] for module in found}
    return (modules & FILES.keys()) - {name, "trl_rewards_plugin"}


IMPORTS = {name: imported_modules(name) for name in FILES if name != "trl_rewards_plugin"}


def room(name):
    return name.split(".")[1]


def test_every_room_has_its_row():
    assert {room(name) for name in IMPORTS} == MAY_IMPORT.keys()


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_arrows_point_one_way(name):
    above = list(MAY_IMPORT)[list(MAY_IMPORT).index(name) :]
    assert not MAY_IMPORT[name] & set(above), "the table itself goes in a circle"
    allowed = MAY_IMPORT[name] | {name}
    wrong = {
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if room(module) == name and room(other) not in allowed
    }
    assert not wrong


def test_training_reaches_no_reward():
    reached = [name for name in IMPORTS if room(name) == "ppo"]
    for name in reached:  # grows while it is read
        packages = {name.rsplit(".", count)[0] for count in range(1, name.count("."))} & IMPORTS.keys()
        reached += (IMPORTS[name] | packages) - set(reached)
    assert [name for name in reached if room(name) == "rewards"] == []


def test_no_module_imports_itself_through_others():
    left = {name: set(others) for name, others in IMPORTS.items()}
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left  # a circle, and what imports it


def test_no_file_name_stands_twice():
    names = Counter(path.name for path in FILES.values() if path.name not in ("__init__.py", "app.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_rooms_can_be_taken_in_at_a_glance():
    sizes = Counter(path.parent.relative_to(ROOT) for path in FILES.values())
    assert {str(folder): size for folder, size in sizes.items() if size > 14} == {}


def test_files_and_functions_are_short():
    files = {name: path.read_text(encoding="utf-8").count("\n") for name, path in FILES.items()}
    functions = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in files.items() if lines > 400} == {}
    assert {name: lines for name, lines in functions.items() if lines > 60} == {}
