import pytest
import transformers

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.inference import shared_classifier


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (transformers.MPNetConfig(max_position_embeddings=514), 512),
        (transformers.BertConfig(max_position_embeddings=512), 512),
        (transformers.BartConfig(max_position_embeddings=1024), 1024),
        (transformers.XLNetConfig(), None),
        (transformers.T5Config(), None),
    ],
)
def test_the_position_limit_of_a_family(config, limit):
    assert shared_classifier.position_limit(config) == limit


def test_a_bundled_judge_goes_by_its_name():
    by_name = shared_classifier.SharedClassifier("bundled:acceptability-judge", None, None, None, None)
    by_folder = shared_classifier.SharedClassifier(asset_path("acceptability-judge"), None, None, None, None)
    assert by_name.key == by_folder.key
    with pytest.raises(InputError, match="did you mean 'acceptability-judge'"):
        shared_classifier.SharedClassifier("bundled:acceptability-jugde", None, None, None, None)
