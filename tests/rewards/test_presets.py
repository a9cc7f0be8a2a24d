import importlib.util

import pytest
import yaml

from tests.rewards.judges import TEXTS, judge, sentiment
from tests.tiny_models import tiny_classifier
from trl_rewards_plugin import assets
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import MultiClassifierReward, presets, shared_classifier


def reward_file(folder, content):
    path = folder / "my reward.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


# --- named presets ---


def test_the_article_is_the_published_pair():
    assert presets.preset_entries("article") == [
        {"model": "textattack/roberta-base-CoLA", "label": "LABEL_1", "weight": 1.0, "name": "acceptability"},
        {
            "model": "cardiffnlp/twitter-roberta-base-sentiment",
            "label": "LABEL_1",
            "weight": 0.5,
            "name": "neutrality",
        },
    ]


def test_importing_the_presets_builds_none(monkeypatch):
    # The import must need neither the assets nor the Hub: both would raise here.
    monkeypatch.setattr(assets, "ROOT", None)
    monkeypatch.setattr(shared_classifier, "AutoConfig", None)
    spec = importlib.util.find_spec(presets.__name__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert not set(fresh.PRESETS) & set(vars(fresh))
    with pytest.raises(TypeError):
        fresh.tiny  # noqa: B018 - the first access opens the assets


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """The tiny preset on stand-ins for the bundled judges, checksums included."""
    tiny_classifier(tmp_path / "acceptability-judge", ("unacceptable", "acceptable"))
    tiny_classifier(tmp_path / "sentiment-judge", ("negative", "neutral", "positive"), seed=1)
    for folder in tmp_path.iterdir():
        assets.write_checksums(folder)
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    yield tmp_path
    vars(presets).pop("tiny", None)


def test_the_tiny_preset_is_an_instance_that_trl_can_import(bundled):
    reward = presets.tiny
    assert isinstance(reward, MultiClassifierReward)
    assert reward is presets.tiny
    assert reward.name == "tiny"
    assert reward.weights == [1.0, 0.5]
    assert [(part.name, part.label) for part in reward.rewards] == [
        ("acceptability", "acceptable"),
        ("neutrality", "neutral"),
    ]
    scores = reward.score(TEXTS)
    parts = scores.components
    assert (scores.total - (parts["acceptability"] + 0.5 * parts["neutrality"])).abs().max() < 1e-6


def test_an_altered_asset_is_refused(bundled):
    with open(bundled / "sentiment-judge" / "config.json", "a") as stream:
        stream.write(" ")
    with pytest.raises(InputError, match=r"sentiment-judge/config\.json with SHA-256"):
        MultiClassifierReward.from_preset("tiny")


def test_the_module_has_no_other_attributes():
    with pytest.raises(AttributeError, match="missing"):
        presets.missing  # noqa: B018 - the access is the test


def test_an_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'article'"):
        MultiClassifierReward.from_preset("artikle")


# --- files ---


def test_a_file_gives_the_reward_it_describes(tmp_path):
    path = reward_file(
        tmp_path,
        {
            "rewards": [
                {"model": str(judge()), "label": "good", "weight": 2, "name": "quality", "score_type": "probability"},
                {"model": str(sentiment()), "label": 1, "max_length": 32},
            ]
        },
    )
    reward = MultiClassifierReward.from_preset(path)
    assert reward.name == "my_reward"
    assert reward.weights == [2.0, 1.0]
    assert reward.rewards[0].score_type == "probability"
    assert reward.rewards[1].max_length == 32
    assert MultiClassifierReward.from_preset(str(path))(TEXTS) == reward(TEXTS)


def test_what_describe_gives_is_read_back(tmp_path):
    reward = MultiClassifierReward.from_preset(
        reward_file(tmp_path, {"rewards": [{"model": str(judge()), "label": 0, "weight": -1.5, "pair": "prompt"}]})
    )
    again = MultiClassifierReward.from_preset(reward_file(tmp_path, {"rewards": reward.describe()}))
    assert again.describe() == reward.describe()
    assert again(["a"], ["b"]) == reward(["a"], ["b"])


def test_unknown_keys_are_refused_with_a_suggestion(tmp_path):
    entry = {"model": str(judge()), "label": "good"}
    with pytest.raises(InputError, match=r"rewards\[1\][\s\S]*'wieght'[\s\S]*did you mean 'weight'"):
        MultiClassifierReward.from_preset(reward_file(tmp_path, {"rewards": [entry, {**entry, "wieght": 1}]}))
    with pytest.raises(InputError, match="'weights'"):
        MultiClassifierReward.from_preset(reward_file(tmp_path, {"rewards": [entry], "weights": [1]}))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("rewards: [", "no YAML"),
        ("", "None"),
        ("- a", "a"),
        ("rewards: []", "rewards"),
        ("rewards: {model: a}", "rewards"),
        ("rewards: [a]", r"rewards\[0\] is 'a'"),
        ("rewards: [{model: a}]", "has only model"),
        ("rewards: [{model: a, label: null}]", "has only model, label"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, found):
    with pytest.raises(InputError, match=rf"'rewards:', a list[\s\S]*Found: .*{found}[\s\S]*for example"):
        MultiClassifierReward.from_preset(reward_file(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        MultiClassifierReward.from_preset(tmp_path / "none.yml")


def test_a_weight_that_is_no_number_is_refused_before_the_models_are_looked_up(tmp_path):
    path = reward_file(tmp_path, "rewards: [{model: ./missing, label: a, weight: heavy}]")
    with pytest.raises(InputError, match="finite numbers"):
        MultiClassifierReward.from_preset(path)
