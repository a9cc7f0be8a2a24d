"""What holds for every reward that the package exports."""

import pickle
from dataclasses import dataclass

import datasets
import evaluate
import pytest
import torch
import yaml

from tests.rewards.judges import judge
from trl_rewards_plugin import rewards
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import MultiClassifierReward, Reward, RewardScores, TextReward

TEXTS = ["the cat sat", "the the the the", ""]
PROMPTS = ["the dog sat", "the the", "x"]


class Lengths(evaluate.Measurement):
    def _info(self):
        features = datasets.Features({"data": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, data):
        return {"lengths": [len(text) for text in data]}


MAKERS = {
    "ClassifierReward": lambda: rewards.ClassifierReward(judge(), label="good", name="quality"),
    "LengthReward": lambda: rewards.LengthReward(2, 3),
    "MetricReward": lambda: rewards.MetricReward(Lengths(keep_in_memory=True), "lengths"),
    "MultiClassifierReward": lambda: MultiClassifierReward([rewards.LengthReward(2, 3)], name="total"),
    "RepetitionReward": lambda: rewards.RepetitionReward(2),
    "SimilarityReward": lambda: rewards.SimilarityReward("prompt"),
}
BASES = {"Reward", "TextReward"}
ELSEWHERE = {"RemoteReward", "CallableReward"}  # beside its server, in tests/serving; in test_functions.py


@pytest.fixture(params=MAKERS)
def reward(request):
    return MAKERS[request.param]()


def test_every_exported_reward_is_tried_here():
    exported = [getattr(rewards, name) for name in rewards.__all__]
    found = {one.__name__ for one in exported if isinstance(one, type) and issubclass(one, Reward)}
    assert found - BASES - ELSEWHERE == set(MAKERS)


def test_a_score_is_a_total_with_its_components(reward):
    scores = reward.score(TEXTS, prompts=PROMPTS)
    assert isinstance(scores, RewardScores)
    assert scores.total.dtype == torch.float32
    assert list(scores.components) == reward.component_names()
    assert {tuple(one.shape) for one in (scores.total, *scores.components.values())} == {(3,)}
    assert scores.total.tolist() == pytest.approx(reward(completions=TEXTS, prompts=PROMPTS))


def test_no_texts_have_no_scores(reward):
    assert reward.score([], prompts=[]).total.tolist() == reward(completions=[], prompts=[]) == []


def test_chats_are_scored_as_their_last_message(reward):
    chats = [[{"role": "assistant", "content": text}] for text in TEXTS]
    assert reward.score(chats, PROMPTS).total.equal(reward.score(TEXTS, PROMPTS).total)


def test_invalid_texts_are_refused_with_their_index(reward):
    for call in (reward, reward.score):
        with pytest.raises(InputError, match=r"completions\[1\]"):
            call(["a", 3], prompts=PROMPTS[:2])


def test_a_component_is_a_named_reward_of_its_own(reward):
    [name] = reward.component_names()
    component = reward.component(name)
    assert component.__name__ == component.name == name
    expected = reward.score(TEXTS, PROMPTS).components[name]
    assert component.score(TEXTS, PROMPTS).total.equal(expected)
    with pytest.raises(InputError, match=name):
        reward.component("something else")


def test_a_combination_has_it_as_a_part(reward):
    combination = MultiClassifierReward([reward], [2.0], name="combination")
    expected = reward.score(TEXTS, PROMPTS).total
    assert combination.score(TEXTS, PROMPTS).total.tolist() == pytest.approx((2 * expected).tolist())
    assert combination.component(reward.name) is reward


def test_it_describes_itself_by_the_same_keys(reward):
    [row] = reward.describe()
    assert list(row)[:7] == ["name", "model", "label", "weight", "score_type", "revision", "pair"]
    assert (row["name"], row["weight"]) == (reward.component_names()[0], 1.0)


class Tokenizer:
    pad_token_id = 0

    def decode(self, ids, **kwargs):
        return " ".join("abcdef"[token] for token in ids)


def test_trls_ppo_trainer_gets_it_as_a_module(reward):
    module = reward.as_reward_model(Tokenizer(), prompts=[[1, 2]])
    scores = module(torch.tensor([[1, 2, 3, 4, 0]]), torch.tensor([[1, 1, 1, 1, 0]]))
    assert scores.tolist() == pytest.approx(reward.score(["d e"], ["b c"]).total.tolist())


@pytest.mark.parametrize("kind", sorted(MAKERS.keys() - {"MetricReward"}))  # that one by name only
def test_it_is_picklable(kind):
    reward = MAKERS[kind]()
    again = pickle.loads(pickle.dumps(reward))
    assert again.name == again.__name__ == reward.name
    assert again(completions=TEXTS, prompts=PROMPTS) == reward(completions=TEXTS, prompts=PROMPTS)


@dataclass(frozen=True)
class QuestionReward(TextReward):
    """What a new reward takes: a dataclass with a name and one method."""

    mark: str = "?"
    name: str = "question"

    def score_text(self, text):
        return float(text.rstrip().endswith(self.mark)) if text else None


def test_a_reward_of_ones_own_is_one_class(tmp_path):
    reward = QuestionReward(mark="!")
    assert reward(["a!", "a?", ""]) == [1.0, 0.0, None]
    assert reward.score(["a!", ""]).total.isnan().tolist() == [False, True]
    entry = {"name": "question", "function": f"{__name__}.QuestionReward", "mark": "!"}
    MultiClassifierReward([reward]).save_preset(tmp_path / "saved.yaml")
    [saved] = yaml.safe_load((tmp_path / "saved.yaml").read_text())["rewards"]
    assert saved == {**entry, "weight": 1.0}
    assert MultiClassifierReward.from_preset(tmp_path / "saved.yaml").rewards == [reward]
    with pytest.raises(InputError, match="letters, digits"):
        QuestionReward(name="a b")


class Broken(TextReward):
    def score_text(self, text):
        return {"raises": 1 / 0} if text == "raises" else float("inf")


def test_a_reward_that_fails_names_itself_and_the_text():
    with pytest.raises(RuntimeError, match=r"'broken' raised ZeroDivisionError.*'raises'"):
        Broken("broken").score(["raises"])
    with pytest.raises(InputError, match=r"finite float or None from reward 'broken'[\s\S]*inf for 'a'"):
        Broken("broken").score(["a"])


def test_a_refusal_within_a_combination_stays_a_refusal():
    with pytest.raises(InputError, match="pass prompts="):
        MultiClassifierReward([rewards.SimilarityReward("prompt")]).score(["a"])
