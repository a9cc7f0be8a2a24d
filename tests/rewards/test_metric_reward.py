import pickle
from concurrent.futures import ThreadPoolExecutor

import datasets
import evaluate
import numpy
import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import MetricReward, MultiClassifierReward

TEXT = datasets.Value("string")


def info(**features):
    return evaluate.MetricInfo(description="", citation="", features=datasets.Features(features))


class ExactMatch(evaluate.Metric):
    """A mean over the texts it is given, as most metrics have."""

    def _info(self):
        return info(predictions=TEXT, references=TEXT)

    def _compute(self, predictions, references, lower=False):
        pairs = list(zip(predictions, references, strict=True))
        hits = [a.lower() == b.lower() if lower else a == b for a, b in pairs]
        return {"exact_match": numpy.float64(numpy.mean(hits)), "parts": [1.0, 2.0]}


class Lengths(evaluate.Measurement):
    """One value a text; counts how often it is asked."""

    asked = 0

    def _info(self):
        return info(data=TEXT)

    def _compute(self, data):
        type(self).asked += 1
        return {"lengths": numpy.array([len(text) for text in data]), "mean": 1.0}


class Labels(evaluate.Metric):
    def _info(self):
        return info(predictions=TEXT, references=TEXT, sources=TEXT)

    def _compute(self, predictions, references, sources):
        return {}


def exact_match(**options):
    return MetricReward(ExactMatch(keep_in_memory=True), "exact_match", references="target", **options)


def lengths(key="lengths"):
    return MetricReward(Lengths(keep_in_memory=True), key)


def test_a_mean_over_texts_is_asked_for_each_text():
    reward = exact_match()
    assert reward(completions=["a", "b", "b"], prompts=["p"] * 3, target=["a", "A", "b"]) == [1.0, 0.0, 1.0]
    assert exact_match(compute_kwargs={"lower": True})(["a", "B"], target=["A", "a"]) == [1.0, 0.0]


def test_the_prompt_may_be_the_reference():
    reward = MetricReward(ExactMatch(keep_in_memory=True), "exact_match", references="prompt", name="copies")
    assert MultiClassifierReward([reward]).score(["a", "b"], ["a", "c"]).components["copies"].tolist() == [1.0, 0.0]


def test_one_value_a_text_is_asked_once_for_all():
    reward = lengths()
    assert reward(["a", "bcd"]) == [1.0, 3.0]
    Lengths.asked = 0
    assert reward(["", "bcd", "a"]) == [0.0, 3.0, 1.0]
    assert Lengths.asked == 1
    assert reward([]) == []
    assert Lengths.asked == 1


def test_what_has_no_reference_is_left_out():
    assert exact_match()(["a", "b"], target=[None, "b"]) == [None, 1.0]
    assert exact_match()(["a"], target=[None]) == [None]


def test_eight_threads_share_one_module():
    reward = exact_match()
    texts = [str(number) for number in range(64)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: reward([text, ""], target=[text, "x"]), texts)) == [[1.0, 0.0]] * 64


@pytest.mark.parametrize(
    ("reward", "columns", "message"),
    [
        (exact_match(), {}, "column 'target'"),
        (lengths("length"), {}, r"lengths, mean[\s\S]*did you mean 'lengths'"),
        (MetricReward(ExactMatch(keep_in_memory=True), "exact_match"), {}, "references= as the column"),
        (
            MetricReward(Lengths(keep_in_memory=True), "mean", references="target"),
            {"target": ["a"]},
            "uses none",
        ),
        (
            MetricReward(ExactMatch(keep_in_memory=True), "parts", references="target"),
            {"target": ["a"]},
            "2 values",
        ),
        (
            MetricReward(Labels(keep_in_memory=True), "x", references="target"),
            {"target": ["a"]},
            "which wants predictions, references, sources",
        ),
    ],
)
def test_what_does_not_fit_the_metric_is_refused(reward, columns, message):
    with pytest.raises(InputError, match=message):
        reward(["a"], **columns)


SCRIPT = """
import datasets
import evaluate

class Shout(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions):
        return {"shout": [float(text.isupper()) for text in predictions]}
"""


def test_a_metric_by_name_is_loaded_on_first_use_and_picklable(tmp_path):
    folder = tmp_path / "shout"
    folder.mkdir()
    (folder / "shout.py").write_text(SCRIPT)
    reward = MetricReward(folder, "shout")
    assert reward._module is None
    assert reward(["A", "a"]) == [1.0, 0.0]
    other = pickle.loads(pickle.dumps(reward))
    assert other._module is None
    assert other(["a", "A"]) == [0.0, 1.0]
    assert reward.__name__ == "shout"
    assert "shout" in repr(reward)


def test_a_missing_metric_stops_with_its_name(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty[\s\S]*folder of the module"):
        MetricReward(tmp_path / "empty", "x")


def test_rouge_needs_no_hub_and_gives_what_the_evaluate_module_gives(monkeypatch):
    monkeypatch.setattr("evaluate.load", lambda *a, **k: pytest.fail("asked the Hub"))
    reward = MetricReward("rouge", "rougeL", references="summary")
    # "a c" against "a b c d": precision 2/2, recall 2/4.
    found = reward(["a c", "a c", "x", "a c"], summary=["a b c d", None, "a", ["x", "a c"]])
    assert found == pytest.approx([2 / 3, None, 0.0, 1.0])
    stemmed = MetricReward("rouge", "rouge1", references="summary", compute_kwargs={"use_stemmer": True})
    assert stemmed(["running"], summary=["runs"]) == [1.0]
    assert pickle.loads(pickle.dumps(reward))(["a"], summary=["a"]) == [1.0]
    with pytest.raises(InputError, match="did you mean 'rougeL'"):
        MetricReward("rouge", "rouge_l", references="summary")(["a"], summary=["a"])


def test_a_metric_that_cannot_be_had_is_refused_when_the_reward_is_built(monkeypatch):
    def unreachable(name):
        raise FileNotFoundError(f"Couldn't find a module script at {name}")

    monkeypatch.setattr("evaluate.loading.evaluation_module_factory", unreachable)
    with pytest.raises(InputError, match=r"'nobodys/metric'[\s\S]*the network"):
        MetricReward("nobodys/metric", "x")
