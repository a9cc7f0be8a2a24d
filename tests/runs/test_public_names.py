import os
from pathlib import Path
from types import SimpleNamespace

from trl_rewards_plugin.assets import ROOT
from trl_rewards_plugin.runs.public_names import (
    located,
    public_name,
    public_part,
    public_value,
    recorded_name,
    shown_name,
)


def test_public_names_hold_nothing_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert public_name("google/flan-t5-small") == "google/flan-t5-small"
    assert public_name(tmp_path / "models" / "mine") == "mine"
    assert public_name("models/mine") == "./models/mine"
    assert public_name("./models/mine") == "./models/mine"
    assert public_name("~/mine") == public_name("file:/home/someone/mine") == "mine"
    assert public_name(str(ROOT / "tiny-t5")) == "bundled:tiny-t5"
    assert public_name("bundled:tiny-t5") == "bundled:tiny-t5"
    assert public_name(SimpleNamespace(name_or_path="owner/name")) == "owner/name"
    assert public_name(SimpleNamespace(name_or_path="")) == "SimpleNamespace"


def test_parts_of_a_reward_name_no_folder_of_this_machine(tmp_path):
    part = {
        "name": "good", "label": "/r/askscience", "model": str(tmp_path / "judge"), "revision": None, "weight": 1.0,
        "tokenizer": str(tmp_path / "words"), "max_length": 512,
    }  # fmt: skip
    assert public_part(part) == {
        "name": "good", "label": "/r/askscience", "model": "judge", "weight": 1.0, "tokenizer": "words",
        "max_length": 512,
    }  # fmt: skip
    metric = {"name": "own", "metric": str(tmp_path / "mine.py"), "compute_kwargs": {"lists": [str(tmp_path / "bad")]}}
    assert public_part(metric) == {"name": "own", "metric": "mine.py", "compute_kwargs": {"lists": ["bad"]}}


def test_a_setting_keeps_all_but_paths(tmp_path):
    given = {"a": [1, None, tmp_path / "x"], "b": {"c": "~/zero.json", "d": "runs/../y"}, "e": ("file:/home/z", 0.5)}
    assert public_value(given) == {"a": [1, None, "x"], "b": {"c": "zero.json", "d": "runs/../y"}, "e": ["z", 0.5]}


def test_only_what_was_named_is_recorded(tmp_path):
    assert recorded_name("owner/name", tmp_path) == "owner/name"
    assert recorded_name(str(ROOT / "tiny-t5"), tmp_path) == "bundled:tiny-t5"
    assert recorded_name(["a text"], tmp_path) is None


def test_a_file_is_recorded_so_that_it_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own.csv").touch()
    monkeypatch.chdir(tmp_path)
    name = recorded_name("own.csv", Path("runs/one"))
    assert name == recorded_name(tmp_path / "own.csv", Path("runs/one")) == "../../own.csv"
    assert shown_name(name) == "own.csv"
    assert recorded_name("own.csv", tmp_path) == "./own.csv"  # not the id of a data set
    assert located({"dataset": name}, Path("runs/one")) == {"dataset": "own.csv"}  # as a flag would name it
    assert (shown_name("owner/name"), shown_name(4)) == ("owner/name", 4)
    settings = {"dataset": name, "model": "owner/name", "reward": "one", "seed": 4, "eval_dataset": None}
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        found = located(settings, Path(os.path.relpath(tmp_path / "runs" / "one")))
        assert Path(found["dataset"]).resolve() == tmp_path / "own.csv"
        assert {**found, "dataset": name} == settings
    monkeypatch.chdir(tmp_path)
    assert located({"reward": "runs"}, Path()) == {"reward": "runs"}  # a preset, whatever folder has its name


def test_no_recorded_path_leads_into_a_home_from_outside(tmp_path, monkeypatch):
    (tmp_path / "someone" / "data").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    assert recorded_name("~/data", tmp_path / "run") == "data"
    assert recorded_name("~/data", tmp_path / "someone" / "run") == "../data"
