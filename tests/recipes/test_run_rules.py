"""LoRA by flags: which weights it trains, and that a run's settings make it again."""

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.cli.train import build_recipe
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.recipes import run_rules
from trl_rewards_plugin.recipes.run_rules import lora_config, lora_settings


# peft asks transformers by the old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_flags_make_an_adapter_that_trains_few_weights(tmp_path):
    flags = ["--use_peft", "--lora_r", "4", "--lora_target_modules", "q", "v", "--output_dir", str(tmp_path / "run")]
    recipe, _ = build_recipe(flags)
    assert recipe.peft_config.task_type == "SEQ_2_SEQ_LM"
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(asset_path("tiny-t5")), recipe.peft_config)
    trained, everything = model.get_nb_trainable_parameters()
    assert 0 < trained < 0.02 * everything


def test_the_settings_of_a_run_make_its_adapter_again():
    settings = lora_settings(lora_config(4, 8, ["v", "q"]))
    assert settings == {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q", "v"]}
    assert lora_settings(LoraConfig(r=2, target_modules="all-linear"))["lora_target_modules"] == "all-linear"
    assert lora_settings(None) == {}


def test_without_the_flag_there_is_none(tmp_path):
    recipe, _ = build_recipe(["--output_dir", str(tmp_path / "run")])
    assert recipe.peft_config is None


def test_without_peft_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(run_rules, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \"peft>=0.21.2\""):
        lora_config(4, 8, None)
