import math
import os
import subprocess
import sys

import evaluate
import huggingface_hub
import numpy as np
import pytest
from datasets import Dataset

from tests.tiny_models import tiny_classifier
from trl_rewards_plugin import ClassifierReward, InputError, MultiClassifierReward
from trl_rewards_plugin.hub.failures import is_dropped, is_offline, status_of
from trl_rewards_plugin.metrics import GRAMMATICALITY, NEUTRALITY
from trl_rewards_plugin.rewards.inference import loading, shared_classifier

ROUGE = os.path.join(os.path.dirname(__file__), "rouge_here")
TEXTS = ["The cat sleeps on the mat.", "Cat the on mat sleeps the.", "", "I love you!", "The cat sleeps on the mat."]
NEUTRAL_JUDGE = "cardiffnlp/twitter-roberta-base-sentiment"
COMPONENTS = {"grammaticality": (GRAMMATICALITY, "acceptability"), "neutrality": (NEUTRALITY, "neutrality")}


@pytest.fixture(scope="module")
def grammaticality(evaluate_cache):
    return evaluate.load(GRAMMATICALITY, "tiny")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Folder of a classifier of the user's own, with three labels."""
    return str(tiny_classifier(tmp_path_factory.mktemp("judges") / "own", ("LABEL_0", "LABEL_1", "LABEL_2"), seed=3))


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("score_type", ["probability", "logit", "log_probability"])
def test_the_numbers_are_the_rewards(name, score_type):
    folder, component = COMPONENTS[name]
    results = evaluate.load(folder, "tiny").compute(predictions=TEXTS, score_type=score_type)
    logits = MultiClassifierReward.from_preset("tiny").component(component)
    reward = ClassifierReward(
        logits.model, tokenizer=logits.tokenizer, label=logits.label, name=component, score_type=score_type
    )
    assert results["scores"] == pytest.approx(reward(TEXTS), abs=1e-6)
    assert results[name] == pytest.approx(sum(reward(TEXTS)) / len(TEXTS), abs=1e-6)
    if score_type == "logit":
        assert results["scores"] == pytest.approx(logits(TEXTS), abs=1e-6)


def test_a_model_of_ones_own_by_label_name_or_index(judge):
    expected = ClassifierReward(judge, label="LABEL_2", score_type="probability")(TEXTS)
    by_name = evaluate.load(NEUTRALITY, judge, label="LABEL_2").compute(predictions=TEXTS)
    by_index = evaluate.load(NEUTRALITY, judge, label=2).compute(predictions=TEXTS)
    assert by_name == by_index
    assert by_name["scores"] == pytest.approx(expected, abs=1e-6)


def test_evaluate_writes_nothing_into_the_judges_folder(judge, evaluate_cache):
    before = sorted(os.listdir(judge))
    metric = evaluate.load(GRAMMATICALITY, judge, label="LABEL_1")
    metric.add_batch(predictions=["a"])
    assert sorted(os.listdir(judge)) == before
    metric.compute()  # gives up its lock
    assert metric.data_dir.startswith(str(evaluate_cache))


def test_the_model_is_loaded_once(monkeypatch):
    loads = []
    real = loading.AutoModelForSequenceClassification.from_pretrained
    monkeypatch.setattr(
        loading.AutoModelForSequenceClassification,
        "from_pretrained",
        lambda *args, **kwargs: loads.append(args) or real(*args, **kwargs),
    )
    metric = evaluate.load(GRAMMATICALITY, "tiny")
    assert len(loads) == 1, "loading the metric loads its judge"
    for settings in ({}, {"score_type": "logit"}, {"batch_size": 1}, {"device": "cpu"}):
        metric.compute(predictions=TEXTS, **settings)
    assert len(loads) == 1


def test_batch_size_changes_no_number(grammaticality):
    one = grammaticality.compute(predictions=TEXTS, batch_size=1)["scores"]
    assert grammaticality.compute(predictions=TEXTS, batch_size=4)["scores"] == pytest.approx(one, abs=1e-6)


def test_share_above_by_hand(judge):
    metric = evaluate.load(GRAMMATICALITY, judge, label=0)
    logits = sorted(metric.compute(predictions=TEXTS, score_type="logit")["scores"])
    # Above means above: the text that scores the threshold itself does not count.
    at_median = metric.compute(predictions=TEXTS, score_type="logit", threshold=logits[2])
    assert at_median["share_above"] == sum(score > logits[2] for score in logits) / 5
    for score_type, middle in (("probability", 0.5), ("logit", 0.0), ("log_probability", math.log(0.5))):
        results = metric.compute(predictions=TEXTS, score_type=score_type)
        assert results["share_above"] == sum(score > middle for score in results["scores"]) / 5


def test_no_texts_have_no_mean(grammaticality):
    assert grammaticality.compute(predictions=[]) == {"grammaticality": None, "scores": [], "share_above": None}


def test_a_text_of_100_000_characters_is_read_to_the_judges_last_position(grammaticality):
    long = "the cat sleeps " * 6667
    assert len(long) > 100_000
    whole, cut = grammaticality.compute(predictions=[long, long[:10_000]])["scores"]
    assert math.isfinite(whole)
    assert whole == pytest.approx(cut, abs=1e-6)


@pytest.mark.parametrize("given", [np.array(TEXTS[:2]), tuple(TEXTS[:2]), Dataset.from_dict({"a": TEXTS[:2]})["a"]])
def test_arrays_and_columns_are_lists_of_texts(grammaticality, given):
    expected = grammaticality.compute(predictions=TEXTS[:2])
    assert grammaticality.compute(predictions=given) == expected


@pytest.mark.parametrize(
    ("predictions", "found"),
    [
        ("The cat sleeps.", "str 'The cat sleeps.'"),
        ([1.5], "predictions[0] is float '1.5'"),
        (["fine", 3], "predictions[1] is int '3'"),
        (["fine", None], "predictions[1] is NoneType 'None'"),
        (7, "int '7'"),
    ],
)
def test_invalid_texts_are_refused_and_the_metric_still_works(grammaticality, predictions, found):
    with pytest.raises(InputError) as caught:
        grammaticality.compute(predictions=predictions)
    assert found in caught.value.found
    assert len(grammaticality.compute(predictions=["a"])["scores"]) == 1


def test_nothing_at_all_is_evaluates_own_error(grammaticality):
    with pytest.raises(ValueError, match="at least once before"):
        grammaticality.compute(predictions=None)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"score_type": "probabilty"}, "'probabilty'"),
        ({"threshold": "high"}, "'high'"),
        ({"threshold": math.nan}, "nan"),
        ({"batch_size": 0}, "0"),
    ],
)
def test_settings_are_refused_and_the_metric_still_works(grammaticality, settings, found):
    with pytest.raises(InputError) as caught:
        grammaticality.compute(predictions=["a"], **settings)
    assert caught.value.found == found
    assert len(grammaticality.compute(predictions=["a"])["scores"]) == 1


@pytest.mark.parametrize(
    ("label", "found", "step"),
    [(None, "alone", 'label="LABEL_1"'), ("LABEL_7", "'LABEL_7'", "use one of these labels"), (3, "3", "labels")],
)
def test_a_model_needs_a_label_that_it_has(judge, label, found, step):
    with pytest.raises(InputError) as caught:
        evaluate.load(GRAMMATICALITY, judge, label=label)
    assert found in caught.value.found
    assert step in caught.value.next_step


def test_add_and_add_batch_collect(grammaticality):
    expected = grammaticality.compute(predictions=TEXTS)
    grammaticality.add(prediction=TEXTS[0])
    grammaticality.add_batch(predictions=TEXTS[1:3])
    grammaticality.add_batch(predictions=[])
    grammaticality.add_batch(predictions=TEXTS[3:])
    assert grammaticality.compute() == expected


def test_it_combines_with_rouge_and_with_its_sister():
    modules = [evaluate.load(GRAMMATICALITY, "tiny"), evaluate.load(NEUTRALITY, "tiny"), evaluate.load(ROUGE)]
    alone = modules[0].compute(predictions=TEXTS[:2])
    combined = evaluate.combine(modules)
    results = combined.compute(predictions=TEXTS[:2], references=["The cat sleeps.", "The dog sleeps."])
    assert results["grammaticality"] == alone["grammaticality"]
    assert results["grammaticality_scores"] == alone["scores"]
    assert set(results) == {
        "grammaticality", "grammaticality_scores", "grammaticality_share_above",
        "neutrality", "neutrality_scores", "neutrality_share_above", "rougeL",
    }  # fmt: skip
    for text, reference in zip(TEXTS[:2], ["The cat sleeps.", "The dog sleeps."], strict=True):
        combined.add_batch(predictions=[text], references=[reference])
    assert combined.compute() == results


SECOND_PROCESS = """
import sys
import evaluate
from trl_rewards_plugin.hub.failures import is_dropped, is_offline, status_of
from trl_rewards_plugin.metrics import GRAMMATICALITY

cache, *texts = sys.argv[1:]
metric = evaluate.load(
    GRAMMATICALITY, "tiny", num_process=2, process_id=1, cache_dir=cache, experiment_id="two", timeout=300
)
for text in texts:
    metric.add_batch(predictions=[text])
print(metric.compute())
"""


@pytest.mark.slow
def test_two_processes_share_one_result(grammaticality, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SECOND_PROCESS, str(tmp_path / "shared"), *TEXTS[3:]]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as other:
        metric = evaluate.load(
            GRAMMATICALITY, "tiny",
            num_process=2, process_id=0, cache_dir=str(tmp_path / "shared"), experiment_id="two", timeout=300,
        )  # fmt: skip
        metric.add_batch(predictions=TEXTS[:1])
        metric.add_batch(predictions=TEXTS[1:3])
        results = metric.compute()
        out, err = other.communicate(timeout=300)
    assert other.returncode == 0, err
    assert out.strip() == "None"
    expected = grammaticality.compute(predictions=TEXTS)
    assert results["scores"] == pytest.approx(expected["scores"], abs=1e-6)
    assert results["grammaticality"] == pytest.approx(expected["grammaticality"], abs=1e-6)


def test_only_the_main_process_loads_the_judge(monkeypatch):
    monkeypatch.setattr(shared_classifier.SharedClassifier, "load", lambda self: pytest.fail("loaded"))
    assert evaluate.load(GRAMMATICALITY, "tiny", num_process=2, process_id=1).process_id == 1


def why_no_hub(repo_id: str) -> str | None:
    """Why the Hub's client cannot reach `repo_id`, by proxy or not; None where it can."""
    try:
        huggingface_hub.HfApi().model_info(repo_id, timeout=10)
    except Exception as error:
        if status_of(error) is None and not is_dropped(error) and not is_offline(error):
            raise
        return f"{repo_id} cannot be reached: {error}"
    return None


def test_a_hub_that_cannot_be_reached_is_the_reason(hub):
    assert why_no_hub("someone/judge").startswith("someone/judge cannot be reached: ")
    hub.create("model", "someone/judge", private=False)
    assert why_no_hub("someone/judge") is None
    hub.fail("GET .*judge", "drop")
    assert why_no_hub("someone/judge").startswith("someone/judge cannot be reached: ")


@pytest.mark.slow
def test_the_published_neutral_logits():
    # From the model's own page: raw logits of LABEL_1, published to four digits.
    published = {"hello": 0.8519, "I love you!": -0.7468, "I hate you": -0.5697}
    reason = why_no_hub(NEUTRAL_JUDGE)
    if reason:
        pytest.skip(reason)
    results = evaluate.load(NEUTRALITY).compute(predictions=list(published), score_type="logit")
    assert results["scores"] == pytest.approx(list(published.values()), abs=1e-3)
