"""Each metric's folder is a whole Space: front matter, requirements, and an app that shows the module beside it."""

import re
import runpy
import shutil
import tomllib
from pathlib import Path

import evaluate
import pytest
import yaml

from tests.documentation import ROOT, blocks_of
from tests.tiny_models import tiny_classifier
from trl_rewards_plugin import metrics
from trl_rewards_plugin.cli.finished_runs import push
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.recipes.evaluate.measures import load_measures

FOLDERS = [Path(getattr(metrics, name)) for name in metrics.__all__]

# The package is in no registry: a Space that named it alone could not be built.
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = f"git+{PROJECT['urls']['Repository']}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_folder_is_complete(folder):
    files = {path.name for path in folder.iterdir() if path.is_file()}
    assert files == {f"{folder.name}.py", "README.md", "app.py", "requirements.txt"}
    assert (folder / "requirements.txt").read_text(encoding="utf-8").startswith(f"{REPOSITORY}\n")
    assert f"pip install {REPOSITORY}\n" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_front_matter_is_a_spaces(folder):
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(front)
    assert set(values) >= {
        "title",
        "emoji",
        "colorFrom",
        "colorTo",
        "sdk",
        "sdk_version",
        "app_file",
        "pinned",
        "tags",
    }
    assert (values["sdk"], values["app_file"]) == ("gradio", "app.py")
    # The Hub's rules for the card of a Space.
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {values["colorFrom"], values["colorTo"]} <= colours
    assert values["tags"] == ["evaluate", "metric"]
    for heading in ("## How to use", "### Inputs", "### Output", "## Limits", "## Citation"):
        assert heading in text


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_app_shows_the_module_beside_it_whatever_the_folder_is_called(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "app")
    real_load = evaluate.load
    # The default judge is on the Hub.
    config = None if folder.name == "reward_gain" else "tiny"
    monkeypatch.setattr(evaluate, "load", lambda path: real_load(path, config))
    shown = []
    monkeypatch.setattr(evaluate.utils, "launch_gradio_widget", shown.append)
    runpy.run_path(str(copy / "app.py"), run_name="__main__")
    assert [module.name for module in shown] == [folder.name]


def test_a_metric_of_ones_own_by_the_recipe_loads_and_its_space_shows_it(tmp_path, monkeypatch, capsys):
    """docs/how-to/metric-space.md, but for the README: it still is the copied metric's, and the plan says so."""
    copy = shutil.copytree(metrics.GRAMMATICALITY, tmp_path / "fluency")
    script = copy / "fluency.py"
    (copy / "grammaticality.py").rename(script)
    script.write_text(script.read_text(encoding="utf-8").replace("Grammaticality(", "Fluency("), encoding="utf-8")
    fluency = evaluate.load(str(copy), "tiny")
    with pytest.raises(InputError, match=f'or name another judge: --metric_kwargs \'{{"{copy}": '):
        load_measures([str(copy)], judge=None, arguments={}, given=["predictions"])
    texts = ["The cat sleeps on the mat.", "Cat the on mat sleeps the."]
    result = fluency.compute(predictions=texts)
    assert result["fluency"] == sum(result["scores"]) / 2
    assert result["scores"] == evaluate.load(metrics.GRAMMATICALITY, "tiny").compute(predictions=texts)["scores"]
    shown = []
    monkeypatch.setattr(evaluate, "load", shown.append)
    monkeypatch.setattr(evaluate.utils, "launch_gradio_widget", lambda module: None)
    runpy.run_path(str(copy / "app.py"), run_name="__main__")
    assert shown == [str(script)]
    monkeypatch.chdir(tmp_path)
    plan = push(["--metric", "fluency", "me/fluency", "--dry-run"])
    assert plan == 0
    out = capsys.readouterr().out
    for line in ("title: Grammaticality", "# Metric: grammaticality", "- `grammaticality` (float): the mean score."):
        assert f"README.md still names grammaticality, as before it was copied: {line}\n" in out
    for name, line in (("README.md", "from"), ("fluency.py", ">>> from")):
        assert f"{name} still names grammaticality, as before it was copied: {line} trl_rewards_plugin" in out
    shutil.rmtree(copy)
    (block,) = [one.code for one in blocks_of(ROOT / "docs" / "how-to" / "metric-space.md") if "copytree" in one.code]
    exec(block, {"GRAMMATICALITY": metrics.GRAMMATICALITY})
    with (copy / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("It correlates with neutrality, as the reward gain over the base does: {'my_neutrality': 0.5}.\n")
    assert push(["--metric", "fluency", "me/fluency", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "still names" not in out
    assert re.search(r"README.md still has \d+ lines copied from grammaticality's, such as: How acceptable", out)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_plan_of_a_space_tells_a_copy_from_the_metric_itself(folder, tmp_path, capsys):
    assert push(["--metric", folder.name, "me/metric", "--dry-run"]) == 0
    assert not re.search("still (names|has)", capsys.readouterr().out)
    copy = shutil.copytree(folder, tmp_path / "fluency")
    (copy / f"{folder.name}.py").rename(copy / "fluency.py")
    assert push(["--metric", str(copy), "me/metric", "--dry-run"]) == 0
    assert f"fluency.py still names {folder.name}, as before it was copied: " in capsys.readouterr().out


def test_the_default_judge_is_changed_as_the_page_says(tmp_path):
    page = ROOT / "docs" / "how-to" / "metric-space.md"
    (method,) = [block.code for block in blocks_of(page) if "def __init__" in block.code]
    judge = tiny_classifier(tmp_path / "judge", ("bad", "good"))
    copy = shutil.copytree(metrics.GRAMMATICALITY, tmp_path / "fluency")
    script = (copy / "grammaticality.py").rename(copy / "fluency.py")
    text = script.read_text(encoding="utf-8") + "\n" + method.replace("user/judge", str(judge))
    script.write_text(text, encoding="utf-8")
    texts = ["The cat sleeps."]
    expected = evaluate.load(metrics.GRAMMATICALITY, str(judge), label="good").compute(predictions=texts)["scores"]
    assert evaluate.load(str(copy)).compute(predictions=texts)["scores"] == expected
    assert evaluate.load(str(copy), "tiny").compute(predictions=texts)["scores"] != expected


@pytest.mark.parametrize("folder", FOLDERS[:2], ids=lambda folder: folder.name)
def test_the_readmes_calls_are_those_that_work(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    block = text.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(
        block.replace("evaluate.load(" + folder.name.upper() + ")", f'evaluate.load({folder.name.upper()}, "tiny")'),
        names,
    )
    results = names["results"]
    assert isinstance(results, dict)
    assert list(results) == [folder.name, "scores", "share_above"]
