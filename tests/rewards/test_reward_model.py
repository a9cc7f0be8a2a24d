import pickle

import pytest
import torch
from transformers import AutoTokenizer

from tests.rewards.judges import judge
from tests.tiny_models import tiny_bart
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, LengthReward, MultiClassifierReward
from trl_rewards_plugin.rewards.functions import CallableReward


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A policy's tokenizer: whole words, pad 1, and special tokens around each text."""
    return AutoTokenizer.from_pretrained(tiny_bart(tmp_path_factory.mktemp("bart")))


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def get_reward(model, query_responses, pad_token_id, context_length):
    """What TRL 1.12's PPOTrainer does with its reward model (experimental/utils.py)."""
    attention_mask = query_responses != pad_token_id
    position_ids = attention_mask.cumsum(1) - attention_mask.long()
    backbone = getattr(model, model.base_model_prefix)
    input_ids = torch.masked_fill(query_responses, ~attention_mask, 0)
    output = backbone(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        return_dict=True,
        output_hidden_states=True,
        use_cache=False,
    )
    reward_logits = model.score(output.hidden_states[-1])
    is_pad = query_responses[:, context_length:] == pad_token_id
    first_pad = torch.where(is_pad.any(1), is_pad.int().argmax(1), is_pad.shape[1])
    last = first_pad - 1 + context_length
    return reward_logits, reward_logits[torch.arange(len(last)), last].squeeze(-1), last


class Recorder:
    """A reward that notes what it was given and scores a text by its number of words."""

    def __call__(self, completions, prompts=None, **kwargs):
        self.completions, self.prompts = completions, prompts
        return [float(len(text.split())) for text in completions]


QUERIES = ("the cat is", "the cat is big and", "a dog")


def batch(tokenizer, rows):
    """Rows (query, response) as TRL lays them out: queries padded on the left, responses on the right."""
    pad = tokenizer.pad_token_id
    pairs = [(ids(tokenizer, query), ids(tokenizer, response)) for query, response in rows]
    left, right = max(len(query) for query, _ in pairs), max(len(response) for _, response in pairs)
    full = [[pad] * (left - len(q)) + q + r + [pad] * (right - len(r)) for q, r in pairs]
    return torch.tensor(full), left


def adapter(reward, tokenizer, **options):
    return MultiClassifierReward([reward], name="words").as_reward_model(tokenizer, **options)


def test_trl_reads_the_score_of_the_response(tokenizer):
    record = Recorder()
    model = adapter(record, tokenizer, prompts=[ids(tokenizer, query) for query in QUERIES])
    rows = [("the cat is", "old"), ("the cat is big and", "the sea is blue"), ("a dog", "")]
    tokens, context = batch(tokenizer, rows)
    logits, scores, _ = get_reward(model, tokens, tokenizer.pad_token_id, context)
    assert logits.shape == (*tokens.shape, 1)
    assert scores.tolist() == [1.0, 4.0, 0.0]
    # "the cat is" is the beginning of another query: the longest match counts.
    assert record.completions == ["old", "the sea is blue", ""]
    assert record.prompts == ["the cat is", "the cat is big and", "a dog"]


def test_it_gives_what_the_reward_gives(tokenizer):
    reward = ClassifierReward(judge(), label="good", pair="prompt")
    model = reward.as_reward_model(tokenizer, prompts=[torch.tensor(ids(tokenizer, query)) for query in QUERIES])
    tokens, context = batch(tokenizer, [("a dog", "is happy"), ("the cat is", "small")])
    _, scores, _ = get_reward(model, tokens, tokenizer.pad_token_id, context)
    expected = reward(["is happy", "small"], ["a dog", "the cat is"])
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(model(tokens, tokens != tokenizer.pad_token_id), scores)


def test_special_tokens_and_padded_prompts_do_not_matter(tokenizer):
    record = Recorder()
    padded = tokenizer(list(QUERIES), padding=True, return_tensors="pt")["input_ids"]
    model = adapter(record, tokenizer, prompts=padded)
    query = tokenizer("a dog")["input_ids"]
    row = torch.tensor([[tokenizer.pad_token_id, *query, *ids(tokenizer, "is happy"), tokenizer.eos_token_id]])
    get_reward(model, row, tokenizer.pad_token_id, 1 + len(query))
    assert record.completions == ["is happy"]


def test_a_response_template_marks_where_the_response_begins(tokenizer):
    record = Recorder()
    model = adapter(record, tokenizer, response_template="speak :")
    # The policy may write the template again: only its first occurrence ends the query.
    tokens, context = batch(tokenizer, [("a dog speak :", "good"), ("speak :", "the sea speak : yes")])
    assert get_reward(model, tokens, tokenizer.pad_token_id, context)[1].tolist() == [1.0, 5.0]
    assert record.completions == ["good", "the sea speak : yes"]
    assert record.prompts == ["a dog speak :", "speak :"]


def test_part_text_scores_query_and_response(tokenizer):
    record = Recorder()
    model = adapter(record, tokenizer, part="text")
    tokens, context = batch(tokenizer, [("a dog", "is happy")])
    assert get_reward(model, tokens, tokenizer.pad_token_id, context)[1].tolist() == [4.0]
    assert record.completions == ["a dog is happy"]


def test_it_is_a_module_without_parameters_that_can_be_moved_and_pickled(tokenizer):
    model = ClassifierReward(judge(), label="good").as_reward_model(tokenizer, part="text")
    assert isinstance(model, torch.nn.Module)
    assert list(model.parameters()) == []
    assert model.to("cpu").eval() is model
    tokens, context = batch(tokenizer, [("a dog", "is happy")])
    again = pickle.loads(pickle.dumps(model))
    expected = get_reward(model, tokens, tokenizer.pad_token_id, context)[1]
    torch.testing.assert_close(get_reward(again, tokens, tokenizer.pad_token_id, context)[1], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither"),
        ({"response_template": ""}, "neither"),
        ({"prompts": [[1]], "response_template": "x"}, "both"),
        ({"part": "text", "response_template": "x"}, "part='text'"),
        ({"part": "answer"}, "part as one of"),
        ({"prompts": []}, "no prompts"),
        ({"prompts": ["a dog"]}, r"prompts\[0\] is 'a dog'"),
        ({"prompts": [[1], [0.5]]}, r"prompts\[1\]"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        adapter(Recorder(), tokenizer, **options)


@pytest.mark.parametrize(
    "setting", [{"weight_schedule": {"Recorder": {0: 0, 1: 1}}}, {"constraints": {"Recorder": {"min": 1}}}]
)
def test_a_reward_that_follows_training_is_refused_when_it_is_built(tokenizer, setting):
    moving = MultiClassifierReward([Recorder(), LengthReward()], name="moving", **setting)
    for reward in (moving, MultiClassifierReward([moving], name="outer"), CallableReward(moving)):
        with pytest.raises(InputError, match=rf"PPOTrainer reports no .*\nFound: .*{next(iter(setting))} of"):
            reward.as_reward_model(tokenizer, prompts=[[1]])


def test_a_function_with_a_history_of_rewards_is_no_combination(tokenizer):
    function = Recorder()
    function.rewards = [1.0]
    model = CallableReward(function).as_reward_model(tokenizer, prompts=[ids(tokenizer, "a dog")])
    tokens, context = batch(tokenizer, [("a dog", "the sea is blue")])
    assert get_reward(model, tokens, tokenizer.pad_token_id, context)[1].tolist() == [4.0]


def test_a_row_without_its_query_is_refused(tokenizer):
    tokens, context = batch(tokenizer, [("my book", "is red")])
    model = adapter(Recorder(), tokenizer, prompts=[ids(tokenizer, "a dog")])
    with pytest.raises(InputError, match="'my book is red'"):
        get_reward(model, tokens, tokenizer.pad_token_id, context)
    model = adapter(Recorder(), tokenizer, response_template="speak :")
    with pytest.raises(InputError, match="'my book is red'"):
        get_reward(model, tokens, tokenizer.pad_token_id, context)


def test_a_response_without_a_score_stops_the_run(tokenizer):
    model = adapter(lambda completions, **kwargs: [None] * len(completions), tokenizer, part="text")
    tokens, context = batch(tokenizer, [("my book", "is red")])
    with pytest.raises(RuntimeError, match="nan for 'my book is red'"):
        get_reward(model, tokens, tokenizer.pad_token_id, context)
