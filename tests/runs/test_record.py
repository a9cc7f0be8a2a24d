from types import SimpleNamespace

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.runs.record import configuration, describe_reward, given_name, told_reward


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


def test_a_reward_is_told_with_its_aggregation_and_without_folders_of_this_machine(tmp_path):
    places = {"model": str(tmp_path / "judge"), "tokenizer": str(tmp_path / "words")}
    parts = [{"name": "good", "weight": 1.0, "label": 0, "revision": None, **places}]
    told = [{"name": "good", "weight": 1.0, "label": 0, "model": "judge", "tokenizer": "words"}]
    reward = SimpleNamespace(describe=lambda: parts, aggregation="minimum")
    assert told_reward(reward) == {"rewards": told, "aggregation": "minimum"}
    reward.aggregation = "weighted_sum"
    assert told_reward(reward)["aggregation"] is None


def test_a_reward_that_does_not_describe_itself_has_a_name_and_a_weight():
    assert describe_reward(len) == [{"name": "len", "weight": 1.0}]


def test_only_what_was_named_is_named():
    assert given_name("owner/name") == "owner/name"
    assert given_name(["a text"]) is None
