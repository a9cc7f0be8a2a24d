from transformers.integrations import deepspeed

from tests.rewards.judges import TEXTS, judge
from trl_rewards_plugin.rewards import ClassifierReward
from trl_rewards_plugin.rewards.inference.loading import Source, load_classifier


class Zero3:
    """What transformers asks a trainer's DeepSpeed config before it loads a model."""

    def is_zero3(self):
        return True


def test_a_judge_is_loaded_whole_beside_a_trainer_under_zero3():
    expected = ClassifierReward(judge(), label="good")(TEXTS)
    config = Zero3()
    deepspeed.set_hf_deepspeed_config(config)
    try:
        # Spread over processes, its weights would have no elements here.
        assert ClassifierReward(judge(), label="good")(TEXTS) == expected
        assert deepspeed.is_deepspeed_zero3_enabled()  # as the trainer left it
    finally:
        deepspeed.unset_hf_deepspeed_config()


def test_no_deepspeed_config_is_made_where_there_was_none():
    load_classifier(Source(str(judge())), None, None)
    assert not deepspeed.is_deepspeed_zero3_enabled()
