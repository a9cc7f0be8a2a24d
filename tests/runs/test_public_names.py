from types import SimpleNamespace

from trl_rewards_plugin.assets import ROOT
from trl_rewards_plugin.runs.public_names import given_name, public_name, public_part, public_value


def test_public_names_hold_nothing_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert public_name("google/flan-t5-small") == "google/flan-t5-small"
    assert public_name(tmp_path / "models" / "mine") == "mine"
    assert public_name("models/mine") == "./models/mine"
    assert public_name("./models/mine") == "./models/mine"
    assert public_name("~/mine") == "mine"
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
    given = {"a": [1, None, tmp_path / "x"], "b": {"c": "~/zero.json", "d": "runs/../y"}, "e": ("z", 0.5)}
    assert public_value(given) == {"a": [1, None, "x"], "b": {"c": "zero.json", "d": "runs/../y"}, "e": ["z", 0.5]}


def test_only_what_was_named_is_named():
    assert given_name("owner/name") == "owner/name"
    assert given_name(["a text"]) is None
