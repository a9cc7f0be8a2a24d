import yaml

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.runs.record import chosen_fields, configuration, epoch_rewards
from trl_rewards_plugin.runs.writing import write_yaml


def test_what_a_preset_would_set_is_always_written(tmp_path):
    args, always = Seq2SeqPPOConfig(output_dir=str(tmp_path), **SHORT), ["per_device_train_batch_size"]
    values = configuration({"preset": "tiny", "reward": None, "prompt_prefix": ""}, args, {"license": None}, always)
    # 8 is the Trainer's own default, and not the tiny preset's.
    assert values["per_device_train_batch_size"] == 8
    assert values["prompt_prefix"] == ""
    assert "reward" not in values
    assert "license" not in values["made_of"]
    assert "torch" in values["made_of"]["versions"]
    assert str(tmp_path) not in str(values)


def test_an_epoch_that_ended_before_its_middle_has_no_mean():
    log = [{"epoch": epoch, "epoch_reward": epoch} for epoch in (1.0, 2.0)] + [{"epoch": 2.0, "loss": 0.5}]
    assert epoch_rewards([*log, {"epoch": 2.1, "epoch_reward": 2.1}]) == [1.0, 2.0]
    assert epoch_rewards([*log, {"epoch": 2.5, "epoch_reward": 2.5}]) == [1.0, 2.0, 2.5]


def test_configuration_has_what_differs_from_the_defaults(tmp_path):
    args = Seq2SeqPPOConfig(
        output_dir=str(tmp_path / "here"), learning_rate=0.5, seed=3, save_strategy="no", hub_token="secret",
        use_cpu=True, reward_weights=[1.0],
    )  # fmt: skip
    fields = chosen_fields(args)
    assert fields == {"learning_rate": 0.5, "save_strategy": "no", "use_cpu": True, "reward_weights": [1.0]}
    assert chosen_fields(args, ["gamma", "seed"]) == {**fields, "gamma": 1.0}
    write_yaml(tmp_path / "c.yaml", fields)
    assert yaml.safe_load((tmp_path / "c.yaml").read_text(encoding="utf-8")) == fields
