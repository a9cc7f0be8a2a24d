import pytest
import transformers

from trl_rewards_plugin.rewards import shared_classifier


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
