from types import SimpleNamespace

import pytest

from trl_rewards_plugin.assets import ROOT
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.names import bundled_path, public_name, resolve


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


def test_bundled_names_are_found():
    assert bundled_path("bundled:prompts/train.jsonl").is_file()
    assert resolve("bundled:prompts") == str(ROOT / "prompts")
    assert resolve("owner/name") == "owner/name"
    with pytest.raises(InputError):
        resolve("bundled:nothing")
