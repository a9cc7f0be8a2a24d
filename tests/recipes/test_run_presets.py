import dataclasses

import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.recipes.run_presets import PRESETS, get_preset
from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO
from trl_rewards_plugin.rewards.presets import PRESETS as REWARDS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_made_of_what_exists(name, tmp_path):
    preset = get_preset(name)
    fields = {field.name for field in dataclasses.fields(Seq2SeqPPOConfig)}
    assert set(preset.config) <= fields
    assert preset.reward in REWARDS
    Seq2SeqPPOConfig(output_dir=str(tmp_path), use_cpu=True, **preset.config)


def test_the_article_is_the_articles():
    preset = get_preset("article")
    assert (preset.model, preset.dataset) == ("google/flan-t5-small", "argilla/news-summary")
    assert (preset.text_column, preset.prompt_prefix) == ("text", "summarize: ")
    assert (preset.config["num_train_epochs"], preset.config["learning_rate"]) == (5, 2e-5)


def test_presets_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        get_preset("tiny").config["learning_rate"] = 1.0


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError) as caught:
        get_preset("artcle")
    assert caught.value.next_step.startswith("did you mean 'article'?")
    with pytest.raises(InputError, match="tiny, article"):
        get_preset("zzz")


@pytest.mark.parametrize("objective", ["raft", "dpo"])
def test_a_preset_leaves_out_what_another_objective_does_not_use(objective, tmp_path):
    recipe = Seq2SeqPPO.from_preset("tiny", objective=objective, num_generations=2, output_dir=str(tmp_path))
    assert recipe.args.objective == objective
    assert recipe.args.critic_learning_rate is None
