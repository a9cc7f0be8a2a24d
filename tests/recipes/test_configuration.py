from types import SimpleNamespace

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.recipes.configuration import configuration, describe_reward, given_name, public_parts


def test_what_a_preset_would_set_is_always_written(tmp_path):
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), **SHORT)
    values = configuration({"preset": "tiny", "reward": None, "prompt_prefix": ""}, args, {"license": None})
    # 8 is the host's own default, and not the tiny preset's.
    assert values["per_device_train_batch_size"] == 8
    assert values["prompt_prefix"] == ""
    assert "reward" not in values
    assert "license" not in values["made_of"]
    assert "torch" in values["made_of"]["versions"]
    assert str(tmp_path) not in str(values)


def test_parts_of_a_reward_name_no_folder_of_this_machine(tmp_path):
    parts = [{"name": "good", "weight": 1.0, "model": str(tmp_path / "judge"), "label": 0, "revision": None}]
    reward = SimpleNamespace(describe=lambda: parts)
    assert public_parts(reward) == [{"name": "good", "weight": 1.0, "model": "judge", "label": 0}]


def test_a_reward_that_does_not_describe_itself_has_a_name_and_a_weight():
    assert describe_reward(len) == [{"name": "len", "weight": 1.0}]


def test_only_what_was_named_is_named():
    assert given_name("owner/name") == "owner/name"
    assert given_name(["a text"]) is None
