import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.tiny_models import tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import decode_prompts
from trl_rewards_plugin.recipes.best_of_n import best_of_n

PROMPTS = ["the cat", "a big dog eats old fish near the river .", "we go home"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


@pytest.fixture(scope="module")
def args():
    return Seq2SeqPPOConfig(output_dir="unused", report_to="none", response_length=6)


def letters(completions, **kwargs):
    return [float(len(text)) for text in completions]


def test_it_is_the_best_of_the_very_samples_that_decoding_draws(folder, args):
    best = best_of_n(folder, letters, PROMPTS, 5, args=args, seed=3)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = decode_prompts(model, tokenizer, PROMPTS, args, num_samples=5, seed=3).texts
    assert best.texts == [max(texts[start : start + 5], key=len) for start in (0, 5, 10)]
    assert best.scores.total.tolist() == [len(text) for text in best.texts]
    assert best.scores.components["letters"].tolist() == best.scores.total.tolist()
    assert best.scores.total.dtype == torch.float32


def test_more_samples_reach_a_higher_mean_and_one_is_plain_sampling(folder, args):
    means = [best_of_n(folder, letters, PROMPTS * 4, n, args=args).scores.total.mean() for n in (1, 4, 16)]
    assert means[0] < means[1] < means[2]
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    plain = decode_prompts(model, tokenizer, PROMPTS, args, seed=0).texts
    assert best_of_n(model, letters, PROMPTS, 1, processing_class=tokenizer, args=args).texts == plain


def test_rewards_see_prompt_and_columns_of_each_sample_and_are_added_up(folder, args):
    seen = []

    def wanted(prompts, completions, letter, **kwargs):
        seen.extend(zip(prompts, letter, strict=True))
        return [float(text.count(one)) for text, one in zip(completions, letter, strict=True)]

    best = best_of_n(folder, [wanted, letters], PROMPTS, 2, args=args, columns={"letter": ["a", "b", "c"]})
    assert seen == [(prompt, one) for prompt, one in zip(PROMPTS, "abc", strict=True) for _ in range(2)]
    parts = best.scores.components
    assert torch.equal(best.scores.total, parts["wanted"] + parts["letters"])


def test_a_loaded_model_stays_as_it_is(folder, args):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).train()
    best_of_n(model, letters, PROMPTS, 2, args=args)
    assert model.training
    assert {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)} == {0.1}


def test_presets_and_bundled_models_go_by_name():
    best = best_of_n("bundled:tiny-t5", "tiny", ["The train is late."], 2)
    assert set(best.scores.components) == {"acceptability", "neutrality"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": "the cat"}, "a list"),
        ({"n": 0}, "at least 1 sample"),
        ({"columns": {"letter": ["a"]}}, "3 values in every column"),
    ],
)
def test_input_that_makes_no_sense_is_refused_before_a_model_is_loaded(change, expected):
    with pytest.raises(InputError, match=expected):
        best_of_n(**{"model": "no/such/model", "reward": letters, "prompts": PROMPTS, **change})


def test_responses_longer_than_the_model_has_positions_are_refused(tmp_path, args):
    from tests.tiny_models import tiny_bart

    long = Seq2SeqPPOConfig(output_dir="unused", report_to="none", response_length=500)
    with pytest.raises(InputError, match="response_length"):
        best_of_n(tiny_bart(tmp_path), letters, PROMPTS, args=long)


def test_pairs_are_the_best_against_the_worst_in_trls_columns_without_ties(folder, args):
    best = best_of_n(folder, letters, PROMPTS, 5, args=args, seed=3)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = decode_prompts(model, tokenizer, PROMPTS, args, num_samples=5, seed=3).texts
    expected = [
        {"prompt": prompt, "chosen": max(own, key=len), "rejected": min(own, key=len)}
        for prompt, own in zip(PROMPTS, (texts[:5], texts[5:10], texts[10:]), strict=True)
    ]
    assert best.to_preference_dataset().to_list() == expected
    assert best.ties == 0


def test_ties_and_prompts_with_one_scored_sample_are_dropped_and_counted(folder, args):
    def judge(prompts, completions, **kwargs):
        """Tells the first prompt's samples apart, likes the second's alike, and scores one of the third's."""
        scores = []
        for row, prompt in enumerate(prompts):
            only_one = None if prompts[:row].count(prompt) else 1.0
            scores.append({PROMPTS[0]: float(row), PROMPTS[1]: 2.0}.get(prompt, only_one))
        return scores

    best = best_of_n(folder, judge, PROMPTS, 3, args=args)
    assert best.ties == 2
    (pair,) = best.to_preference_dataset().to_list()
    assert (pair["prompt"], pair["chosen"]) == (PROMPTS[0], best.texts[0])
    with pytest.raises(InputError, match="3 ties"):
        best_of_n(folder, letters, PROMPTS, 1, args=args).to_preference_dataset()


def test_pairs_of_conversations_are_messages(args):
    from trl_rewards_plugin.recipes.best_of_n import BestOfN
    from trl_rewards_plugin.rewards import RewardScores

    prompt = [{"role": "user", "content": "the cat"}]
    scores = RewardScores(torch.tensor([2.0]), {})
    (row,) = BestOfN(["good"], scores, [prompt], ["bad"], [True]).to_preference_dataset().to_list()
    assert row["prompt"] == prompt
    assert row["chosen"] == [{"role": "assistant", "content": "good"}]
    assert row["rejected"] == [{"role": "assistant", "content": "bad"}]
