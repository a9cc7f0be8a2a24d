import dataclasses
import functools
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, TrainerState

from tests.rewards.judges import TEXTS, judge, sentiment
from tests.tiny_models import tiny_classifier
from trl_rewards_plugin import assets
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import (
    ClassifierReward,
    LengthReward,
    MetricReward,
    MultiClassifierReward,
    RepetitionReward,
    SimilarityReward,
    TextReward,
    presets,
)
from trl_rewards_plugin.rewards.combining.aggregate import AGGREGATIONS
from trl_rewards_plugin.rewards.combining.combination_settings import AGGREGATION_NAMES
from trl_rewards_plugin.rewards.inference import loading
from trl_rewards_plugin.rewards.metric_reward import Rouge


def reward_file(folder, content):
    path = folder / "my reward.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


# --- named presets ---


def test_the_article_is_the_published_pair():
    assert presets.PRESETS["article"] == (
        {"model": "textattack/roberta-base-CoLA", "label": "LABEL_1", "weight": 1.0, "name": "acceptability"},
        {
            "model": "cardiffnlp/twitter-roberta-base-sentiment",
            "label": "LABEL_1",
            "weight": 0.5,
            "name": "neutrality",
        },
    )


# What the models' own configs say (id2label in order), so that each preset can be built without the Hub.
LABELS = {
    "textattack/roberta-base-CoLA": ("LABEL_0", "LABEL_1"),
    "cardiffnlp/twitter-roberta-base-sentiment": ("LABEL_0", "LABEL_1", "LABEL_2"),
    "s-nlp/roberta_toxicity_classifier": ("neutral", "toxic"),
    "Intel/polite-guard": ("polite", "somewhat polite", "neutral", "impolite"),
    "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli": ("entailment", "neutral", "contradiction"),
}


@pytest.fixture
def hub(monkeypatch):
    """Models of these names are tiny ones with the same labels."""

    class Hub:
        @staticmethod
        def from_pretrained(name, **options):
            return AutoConfig.from_pretrained(judge(name.replace("/", "-"), LABELS[name]))

    monkeypatch.setattr(loading, "AutoConfig", Hub)
    yield
    for name in presets.PRESETS:
        vars(presets).pop(name, None)


@pytest.mark.parametrize("name", [name for name in presets.PRESETS if name != "tiny"])
def test_every_preset_is_an_attribute_with_labels_that_its_models_have(hub, name):
    reward = getattr(presets, name)
    assert reward.name == name
    assert reward is getattr(presets, name)
    for part, entry in zip(reward.rewards, presets.PRESETS[name], strict=True):
        assert part.label == entry["label"]
        assert part.pair == entry.get("pair")


def test_a_label_that_the_model_does_not_have_stops_with_the_list(hub, tmp_path):
    path = reward_file(tmp_path, "rewards: [{model: Intel/polite-guard, label: politely}]")
    with pytest.raises(InputError, match=r"2: 'neutral', 3: 'impolite'[\s\S]*did you mean 'polite'"):
        MultiClassifierReward.from_preset(path)


def test_importing_the_presets_builds_none(monkeypatch):
    # The import must need neither the assets nor the Hub: both would raise here.
    monkeypatch.setattr(assets, "ROOT", None)
    monkeypatch.setattr(loading, "AutoConfig", None)
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
    with pytest.raises(AttributeError, match=r"'fil': did you mean 'file'\? use one of article, .*, file$"):
        presets.fil  # noqa: B018 - the access is the test


def test_an_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'article'"):
        MultiClassifierReward.from_preset("artikle")


# --- files ---


def test_the_names_of_aggregations_are_those_of_the_functions():
    assert tuple(AGGREGATIONS) == AGGREGATION_NAMES


def test_a_file_within_itself_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("rewards: [{combination: b.yaml}]")
    (tmp_path / "b.yaml").write_text("rewards: [{combination: a.yaml}]")
    with pytest.raises(InputError, match=r"no part of itself[\s\S]*a.yaml in .*b.yaml in .*a.yaml"):
        MultiClassifierReward.from_preset(tmp_path / "a.yaml")


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


def test_a_file_called_like_its_component_gives_a_total_of_another_name(tmp_path):
    path = tmp_path / "length.yaml"
    path.write_text("rewards: [{function: length, max_length: 3}]")
    reward = MultiClassifierReward.from_preset(path)
    assert (reward.name, reward.component_names()) == ("length_total", ["length"])
    path.write_text("{name: length, rewards: [{function: length, max_length: 3}]}")
    with pytest.raises(InputError, match="a name that no component has"):
        MultiClassifierReward.from_preset(path)


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
    with pytest.raises(InputError, match=r"'token'[\s\S]*is read from TRL_REWARDS_TOKEN"):
        MultiClassifierReward.from_preset(
            reward_file(tmp_path, "rewards: [{function: remote, url: 'http://127.0.0.1:1', token: abc}]")
        )
    with pytest.raises(InputError, match="'weights'"):
        MultiClassifierReward.from_preset(reward_file(tmp_path, {"rewards": [entry], "weights": [1]}))


def test_reward_in_place_of_rewards_is_told(tmp_path):
    with pytest.raises(InputError, match="did you mean 'rewards'"):
        MultiClassifierReward.from_preset(reward_file(tmp_path, "reward: [{function: length, min_length: 3}]"))


def test_a_function_of_a_file_in_the_current_folder(tmp_path, monkeypatch):
    source = "def loud(completions, **kwargs):\n    return [float(text.isupper()) for text in completions]\n"
    (tmp_path / "my_own_rewards.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = reward_file(tmp_path, "rewards: [{function: 'my_own_rewards.py:loud'}]")
    reward = MultiClassifierReward.from_preset(path)
    assert reward(completions=["A", "a"]) == [1.0, 0.0]
    assert "function='my_own_rewards.py:loud'" in repr(reward)
    assert str(tmp_path) not in repr(reward)
    assert pickle.loads(pickle.dumps(reward))(completions=["A"]) == [1.0]
    loud = MultiClassifierReward.from_preset(reward_file(tmp_path, "rewards: [{function: 'my_own_rewards:loud'}]"))
    assert loud.component_names() == ["loud"]
    with pytest.raises(InputError, match=r"the file of no\.py:name, beside the reward file"):
        MultiClassifierReward.from_preset(reward_file(tmp_path, "rewards: [{function: 'no.py:loud'}]"))
    message = r"or file\.py:name[\s\S]*'my_own_rewards\.py:quiet': "
    with pytest.raises(InputError, match=message):
        MultiClassifierReward.from_preset(reward_file(tmp_path, "rewards: [{function: 'my_own_rewards.py:quiet'}]"))
    # What is saved is found again from elsewhere, by a process that knows nothing of this folder.
    reward.save_preset(tmp_path / "saved.yaml")
    code = "from trl_rewards_plugin import MultiClassifierReward as M; print(M.from_preset('saved.yaml')(['A', 'a']))"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tmp_path / "saved.yaml", elsewhere)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[1.0, 0.0]\n"
    # Another file of that name would give the functions of the first.
    shutil.copy(tmp_path / "my_own_rewards.py", elsewhere)
    with pytest.raises(InputError, match=r"give my_own_rewards\.py another name"):
        MultiClassifierReward.from_preset(
            reward_file(tmp_path, "rewards: [{function: 'elsewhere/my_own_rewards.py:loud'}]")
        )


LOUD = "def loud(completions):\n    return [float(text.isupper()) for text in completions]\n"


def test_a_python_file_is_found_beside_the_reward_file_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_rewards.py").write_text(LOUD, encoding="utf-8")
    path = reward_file(tmp_path, "rewards: [{function: 'beside_rewards.py:loud'}]")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "beside_rewards.py").write_text("", encoding="utf-8")  # of the two, the one beside it
    assert MultiClassifierReward.from_preset(path)(["A", "a"]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "near_rewards.py:loudd",
            r"Found:    'near_rewards\.py:loudd': .* loud\n.*did you mean 'near_rewards\.py:loud'\?",
        ),
        ("near_rewards.py:x", r"has no attribute 'x'\nNext:     check the name"),
        ("near_rewards.loud", r"No module named 'near_rewards'\nNext:     did you mean 'near_rewards\.py:loud'\?"),
        ("near_rewards:loud", r"did you mean 'near_rewards\.py:loud'\?"),
        ("near_reward.py:loud", r"no file .*\nNext:     did you mean '.*/near_rewards\.py'\?$"),
    ],
)
def test_a_mistyped_function_of_a_file_is_shown_as_written_with_the_nearest(tmp_path, monkeypatch, function, message):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "near_rewards", raising=False)
    (tmp_path / "near_rewards.py").write_text(LOUD, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        MultiClassifierReward.from_preset(reward_file(tmp_path, f"rewards: [{{function: '{function}'}}]"))


def test_a_ready_made_reward_is_known_by_its_own_name_before_it_is_built(tmp_path):
    both = "rewards: [{function: repetition}, {function: length, min_length: 1, only_if: {distinct: 0.5}}]"
    assert MultiClassifierReward.from_preset(reward_file(tmp_path, both)).component_names() == ["distinct", "length"]
    one = "{function: similarity, reference: prompt}"
    two = f"rewards: [{one}, {one[:-1]}, rouge_type: rouge1}}]"
    assert len(MultiClassifierReward.from_preset(reward_file(tmp_path, two)).component_names()) == 2


def test_weights_are_not_assigned(tmp_path):
    reward = MultiClassifierReward.from_preset(reward_file(tmp_path, "rewards: [{function: length, min_length: 3}]"))
    with pytest.raises(InputError, match=r"with all else as before: .*weights=\[2.0\], ...\)"):
        reward.weights = [2.0]
    assert reward.weights == [1.0]


@pytest.mark.parametrize("content", ["rewards: [", "", "- a", "rewards: []", "rewards: {model: a}", "rewards: \x00"])
def test_a_file_of_another_form_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"'rewards:', a list[\s\S]*for example: rewards"):
        MultiClassifierReward.from_preset(reward_file(tmp_path, content))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a", r"rewards\[0\] as a mapping"),
        ("{}", "one of model, asset, function, metric"),
        ("{modle: a, label: b}", "did you mean 'model'"),
        ("{model: a, function: length}", "one of model, asset, function, metric"),
        ("{model: a}", r"label in my reward.yaml[\s\S]*add label: beside model:$"),
        ("{function: remote}", r"url in my reward.yaml[\s\S]*add url: beside function:$"),
        ("{model: a, label: null}", "label in my reward.yaml"),
        ("{model: [a], label: b}", "as a name"),
        ("{function: [a]}", "as a name"),
        ("{function: length, min_lenght: 3}", "did you mean 'min_length'"),
        ("{function: similarity}", "reference in my reward.yaml"),
        ("{function: similarity, reference: a, rouge_type: rouge}", "rouge_type as one of"),
        ("{function: lenght}", "did you mean 'length'"),
        ("{function: lenght, max_length: 3}", "did you mean 'length'"),
        ("{function: json.dmups}", "package.module.name"),
        ("{function: no_such_package.reward}", "No module named"),
        (
            "{function: json.dumps, min_length: 3}",
            "only the keys function, name, timeout, retries, on_failure, weight",
        ),
        ("{metric: rouge}", "key in my reward.yaml"),
        ("{asset: no-judge, label: b}", "bundled asset"),
        ("{function: length, min_length: 3, clip: 5}", r"clip of 'my reward.yaml, rewards\[0\]'"),
        ("{function: length, min_length: 3, clip: zscore}", "Next:     for example"),
        (
            "{function: length, min_length: 3, normalization: zscores}",
            r"normalization of 'my reward.yaml, rewards\[0\]'",
        ),
        (
            "{function: length, min_length: 3, weight_schedule: 1}",
            r"weight_schedule of 'my reward.yaml, rewards\[0\]'",
        ),
    ],
)
def test_an_entry_of_another_form_is_refused(tmp_path, entry, message):
    with pytest.raises(InputError, match=message):
        MultiClassifierReward.from_preset(reward_file(tmp_path, f"rewards: [{entry}]"))


def test_an_unknown_aggregation_in_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="did you mean 'minimum'"):
        MultiClassifierReward.from_preset(
            reward_file(tmp_path, "{aggregation: minimun, rewards: [{function: length, min_length: 3}]}")
        )


def test_a_missing_reward_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        MultiClassifierReward.from_preset(tmp_path / "none.yml")


def test_an_invalid_weight_is_refused_before_the_models_are_looked_up(tmp_path):
    path = reward_file(tmp_path, "rewards: [{model: me/missing, label: a, weight: heavy}]")
    with pytest.raises(InputError, match="finite number"):
        MultiClassifierReward.from_preset(path)


# --- saving ---


def shouts(completions, **kwargs):
    return [float(text.isupper()) for text in completions]


def every_kind():
    rewards = [
        ClassifierReward(judge(), label="good", score_type="probability", max_length=32, dtype="bfloat16"),
        ClassifierReward(sentiment(), label="neutral", name="neutrality", pair="prompt", tokenizer=sentiment()),
        LengthReward(min_length=2, max_length=5, unit="characters"),
        RepetitionReward(ngram_size=2, name="distinct_2"),
        SimilarityReward("summary", measure="precision"),
        shouts,
    ]
    return MultiClassifierReward(
        rewards,
        [1.0, -0.5, 0.25, 1, 2, 0],
        name="everything",
        normalization={"neutrality": "zscore", "length": {"mean": 0.5, "scale": 2.0}},
        clip={"neutrality": (-3.0, 3.0), "shouts": (0.0, float("inf"))},
        weight_schedule={"distinct_2": {0.0: 0.0, 0.5: 1.0}},
    )


def test_a_saved_preset_gives_the_same_reward_again(tmp_path):
    reward = every_kind()
    reward.save_preset(tmp_path / "saved.yaml")
    again = MultiClassifierReward.from_preset(tmp_path / "saved.yaml")
    assert again.describe() == reward.describe()
    assert again.name == reward.name
    assert again._combination == reward._combination
    columns = {"summary": ["hello", "the cat"] * 4, "trainer_state": TrainerState(global_step=1, max_steps=4)}
    assert again.score(TEXTS, TEXTS, **columns).total.equal(reward.score(TEXTS, TEXTS, **columns).total)
    assert again(TEXTS, TEXTS, **columns) == reward(TEXTS, TEXTS, **columns)
    MultiClassifierReward.from_preset(tmp_path / "saved.yaml").save_preset(tmp_path / "twice.yml")
    assert (tmp_path / "twice.yml").read_text() == (tmp_path / "saved.yaml").read_text()


def test_a_learnt_scale_is_saved_as_fixed_numbers(tmp_path):
    reward = MultiClassifierReward([LengthReward()], normalization="zscore", name="z")
    reward(["a", "a b c"])  # mean 2, deviation 1
    reward.save_preset(tmp_path / "saved.yaml")
    again = MultiClassifierReward.from_preset(tmp_path / "saved.yaml")
    assert again.score(["a b c d e"]).total.tolist() == reward.score(["a b c d e"]).total.tolist() == [3.0]
    assert again.describe()[0]["normalization"] == {"mean": 2.0, "scale": 1.0}


def test_a_function_of_a_loose_module_is_saved_by_its_file(tmp_path, monkeypatch):
    file = tmp_path / "loose_rewards.py"
    file.write_text("def api(completions):\n    return [1.0 for _ in completions]\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    reward = MultiClassifierReward([importlib.import_module("loose_rewards").api])
    reward.save_preset(tmp_path / "saved.yaml")
    [entry] = yaml.safe_load((tmp_path / "saved.yaml").read_text(encoding="utf-8"))["rewards"]
    assert entry["function"] == f"{file}:api"
    assert MultiClassifierReward.from_preset(tmp_path / "saved.yaml").rewards[0].function is reward.rewards[0]


def test_the_aggregation_is_saved(tmp_path):
    reward = MultiClassifierReward([shouts, LengthReward(max_length=3)], aggregation="minimum")
    reward.save_preset(tmp_path / "saved.yaml")
    assert MultiClassifierReward.from_preset(tmp_path / "saved.yaml").aggregation == "minimum"


def test_what_describe_gives_of_every_kind_is_read_back(tmp_path):
    reward = every_kind()
    again = MultiClassifierReward.from_preset(reward_file(tmp_path, {"rewards": reward.describe()}))
    assert again.describe() == reward.describe()


def test_folders_are_saved_with_their_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(judge().parent)
    reward = MultiClassifierReward([ClassifierReward(judge().name, label="good")])
    reward.save_preset(tmp_path / "saved.yaml")
    monkeypatch.chdir(tmp_path)
    assert MultiClassifierReward.from_preset("saved.yaml").rewards[0].model_id == str(judge())


def test_a_bundled_model_is_saved_by_its_name(bundled, tmp_path):
    MultiClassifierReward.from_preset("tiny").save_preset(tmp_path / "saved.yaml")
    content = yaml.safe_load((tmp_path / "saved.yaml").read_text())
    assert [entry["asset"] for entry in content["rewards"]] == ["acceptability-judge", "sentiment-judge"]
    assert MultiClassifierReward.from_preset(tmp_path / "saved.yaml").describe() == presets.tiny.describe()


def test_a_metric_is_saved_by_its_name(tmp_path):
    reward = MultiClassifierReward([MetricReward("rouge", "rougeL", references="summary", name="rouge")])
    reward.save_preset(tmp_path / "saved.yaml")
    again = MultiClassifierReward.from_preset(tmp_path / "saved.yaml")
    assert again.describe() == reward.describe()
    assert vars(again.rewards[0]).keys() == vars(reward.rewards[0]).keys()
    assert again.rewards[0].references == "summary"


def cached(folder, name):
    """A cache of the Hub with one model, as the Hub's library writes it; its commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = folder / f"models--{name.replace('/', '--')}"
    shutil.copytree(judge(), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return commit


def test_hub_models_are_saved_with_the_commit_that_was_read(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    reward = MultiClassifierReward.from_preset("polite")
    with pytest.raises(InputError, match="Intel/polite-guard in the cache"):
        reward.save_preset(tmp_path / "saved.yaml")
    commit = cached(tmp_path, "Intel/polite-guard")
    reward.save_preset(tmp_path / "saved.yaml")
    [entry] = yaml.safe_load((tmp_path / "saved.yaml").read_text())["rewards"]
    assert (entry["model"], entry["revision"]) == ("Intel/polite-guard", commit)


FROM_THE_CACHE = """
import sys
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward
MultiClassifierReward([ClassifierReward("org/judge", label="good", revision="main")]).save_preset(sys.argv[1])
reward = MultiClassifierReward.from_preset(sys.argv[1])
print(reward.rewards[0].revision, len(reward(["a"])))
"""


@pytest.mark.slow
def test_the_commit_is_that_of_the_hub_cache(tmp_path):
    commit = cached(tmp_path, "org/judge")
    command = [sys.executable, "-c", FROM_THE_CACHE, str(tmp_path / "saved.yaml")]
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert found.split() == [commit, "1"]


@pytest.mark.parametrize(
    ("reward", "found", "step"),
    [
        (lambda completions, **kwargs: [1.0], "a function that cannot be imported", "at the top of a module"),
        (functools.partial(shouts, extra=1), "a function that cannot be imported", "at the top of a module"),
        (
            MultiClassifierReward([shouts], name="inner"),
            "a combination that no",
            r"inner\.save_preset\('inner\.yaml'\)",
        ),
        (TextReward("plain"), "TextReward, which is no dataclass", "as a dataclass"),
        (
            dataclasses.make_dataclass("Local", [("name", str, "local")], bases=(TextReward,))(),
            "a class that",
            "class at",
        ),
        (MetricReward(Rouge(), "rouge1", references="prompt"), "a loaded metric", "MetricReward\\("),
    ],
)
def test_what_no_file_can_name_is_not_saved(tmp_path, reward, found, step):
    with pytest.raises(InputError, match=rf"something that a file can name\nFound: +{found}.*\nNext: .*{step}"):
        MultiClassifierReward([reward]).save_preset(tmp_path / "saved.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_is_not_saved(tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(judge())
    tokenizer = AutoTokenizer.from_pretrained(judge())
    for reward in (
        ClassifierReward(model, label="good", tokenizer=tokenizer),
        ClassifierReward(judge(), label="good", tokenizer=tokenizer),
    ):
        with pytest.raises(InputError, match="by name, for a file"):
            MultiClassifierReward([reward]).save_preset(tmp_path / "saved.yaml")


def test_a_path_that_would_not_be_read_back_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"saved\.txt\.yaml"):
        MultiClassifierReward([shouts]).save_preset(tmp_path / "saved.txt")
    with pytest.raises(InputError, match="make the folder"):
        MultiClassifierReward([shouts]).save_preset(tmp_path / "nowhere" / "saved.yaml")


def test_a_file_of_someone_elses_is_not_overwritten(tmp_path):
    path = tmp_path / "saved.yaml"
    for weight in (1.0, 2.0):
        MultiClassifierReward([shouts], [weight]).save_preset(path)
        assert MultiClassifierReward.from_preset(path).weights == [weight]
    path.write_text("# why these\nrewards: [{function: length}]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"that save_preset wrote\nFound: .*saved\.yaml"):
        MultiClassifierReward([shouts]).save_preset(path)
    assert path.read_text(encoding="utf-8").startswith("# why these")


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported."""
    (tmp_path / "traced_module.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('RAN').touch()\n"
        "def judge(completions): return [0.0] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "traced_module", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "further",
    ["- {function: length, nonsense: 1}", "- {function: 3}", "- 7", "- {function: length, clip: [2, 1]}", "- {}"],
)
def test_a_file_that_is_refused_imports_nothing(traced, further):
    (traced / "r.yaml").write_text(f"rewards:\n- function: traced_module.judge\n{further}\n")
    with pytest.raises(InputError):
        MultiClassifierReward.from_preset(traced / "r.yaml")
    assert not (traced / "RAN").exists()


@pytest.mark.parametrize("entry", ["function: traced_module.judge", "metric: ./m.py, key: k"])
def test_code_in_a_file_is_refused_unimported_where_the_caller_forbids_it(traced, entry):
    (traced / "r.yaml").write_text(f"rewards:\n- {{{entry}}}\n")
    with pytest.raises(InputError, match="run no code of their own"):
        MultiClassifierReward.from_preset(traced / "r.yaml", allow_code=False)
    assert not (traced / "RAN").exists()
    (traced / "safe.yaml").write_text("rewards:\n- {function: repetition}\n")
    safe = MultiClassifierReward.from_preset(traced / "safe.yaml", allow_code=False)
    assert safe.component_names() == ["distinct"]


# --- paths ---


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    shutil.copytree(judge(), tmp_path / "files" / "judge")
    for name, model in (("a.yaml", "./judge"), ("b.yaml", "judge"), ("c.yaml", "../files/judge")):
        (tmp_path / "files" / name).write_text(f"rewards: [{{model: {model}, label: good, tokenizer: judge}}]")
    monkeypatch.chdir(tmp_path)
    expected = ClassifierReward(judge(), label="good")(["a"])
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        assert MultiClassifierReward.from_preset(f"files/{name}")(["a"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["./nowhere", "judges/", "judge.jsn", "a/b/c", "~/nowhere"])
def test_what_is_meant_as_a_path_is_not_asked_of_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.json").touch()
    monkeypatch.setattr("huggingface_hub.file_download.http_get", lambda *a, **k: pytest.fail("asked the Hub"))
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *a, **k: pytest.fail("asked the Hub"))
    with pytest.raises(InputError) as caught:
        ClassifierReward(name, label="good")
    assert "no such file or folder" in caught.value.found
    assert name != "judge.jsn" or "did you mean 'judge.json'" in caught.value.next_step
    with pytest.raises(InputError, match="no such file or folder"):
        MetricReward(name, "x")


def test_a_reward_file_of_a_near_name_is_suggested(tmp_path):
    (tmp_path / "pair.yaml").write_text("rewards: [{function: repetition}]")
    with pytest.raises(InputError, match=r"did you mean '.*pair\.yaml'"):
        MultiClassifierReward.from_preset(tmp_path / "pair.yml")


def test_a_tokenizer_that_is_meant_as_a_path_is_refused_when_the_reward_is_built():
    with pytest.raises(InputError, match="no such file or folder"):
        ClassifierReward(judge(), label="good", tokenizer="./nowhere")
