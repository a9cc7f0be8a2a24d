"""What people get from an index instead of a clone: the README's links, and versions that agree with the metadata."""

import importlib.util
import re
import tomllib

import pytest

from tests.documentation import PAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]


@pytest.fixture(scope="module")
def readme():
    """The README as the package's metadata has it."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.absolute((ROOT / "README.md").read_text(encoding="utf-8"), REPOSITORY)


def test_the_readme_of_the_package_has_absolute_links_that_lead_to_files_of_the_repository(readme):
    links = re.findall(r"\]\(([^)]+)\)", readme) + re.findall(r'(?:href|src)="([^"]+)"', readme)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    inside = [link.removeprefix(REPOSITORY) for link in links if link.startswith(REPOSITORY)]
    assert len(inside) > 20
    for link in inside:
        _, kind, branch, path = link.partition("#")[0].split("/", 3)
        assert branch == "main"
        assert (ROOT / path).is_dir() == (kind == "tree"), link
        assert (ROOT / path).exists(), link
        assert path.endswith(".png") == (kind == "raw"), link


def test_versions_in_messages_and_pages_are_those_of_the_metadata():
    needed = PROJECT["dependencies"] + [need for extra in PROJECT["optional-dependencies"].values() for need in extra]
    bounds = dict(need.split(">=") for need in needed if ">=" in need)
    files = [*(ROOT / "trl_rewards_plugin").rglob("*.py"), *(page for page in PAGES if page.suffix == ".md")]
    found = [
        (file.relative_to(ROOT).as_posix(), name, version)
        for file in files
        for name, version in re.findall(r"\b([a-zA-Z][\w-]+)>=(\d[\d.]*\d|\d)", file.read_text(encoding="utf-8"))
    ]
    assert {name for _, name, _ in found} >= {"peft", "trl"}
    assert [place for place in found if bounds.get(place[1]) != place[2]] == []


def test_every_url_of_the_project_is_in_its_repository():
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())
