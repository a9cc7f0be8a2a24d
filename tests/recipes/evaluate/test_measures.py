from unittest.mock import Mock

import datasets
import evaluate
import numpy as np
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from trl_rewards_plugin import InputError
from trl_rewards_plugin.recipes.data import HeldOut
from trl_rewards_plugin.recipes.evaluate import measures
from trl_rewards_plugin.recipes.evaluate.measures import ModuleMeasure, RewardMeasure, check_metrics, load_measures

TEXT = datasets.Value("string")
HELD_OUT = HeldOut(["say: a", "say: c"], ["a", "c"], {"id": [1, 2]})
TEXTS = (["a b", "c"], HELD_OUT, ["a", "x"])
ALL = ["predictions", "references", "sources"]


def module(result, features=None):
    """A module that answers with `result`, or with what it makes of its inputs."""

    class Answer(evaluate.Metric):
        def _info(self):
            given = datasets.Features(features or {"predictions": TEXT})
            return evaluate.MetricInfo(description="", citation="", inputs_description="", features=given)

        def _compute(self, predictions, references=None, sources=None, scale=1):
            return result(predictions, references, sources, scale) if callable(result) else result

    return Answer(keep_in_memory=True)


def test_numbers_and_lists_are_rows_and_words_are_none():
    found = {"answer": 0.5, "f1": [0.25, 0.75], "hash": "x", "flag": True, "pair": [1, 2, 3], "count": np.float64(2)}
    rows = ModuleMeasure(module(found), {}, ALL).measure(*TEXTS)
    assert rows.pop("answer f1").tolist() == [0.25, 0.75]
    assert rows == {"answer": 0.5, "answer count": 2.0}


def test_scores_belong_to_the_modules_own_number():
    rows = ModuleMeasure(module({"answer": 9.0, "scores": [1.0, None]}), {}, ALL).measure(*TEXTS)
    assert list(rows) == ["answer"]
    np.testing.assert_array_equal(rows["answer"], [1.0, np.nan])
    assert list(ModuleMeasure(module({"scores": [1.0, 2.0]}), {}, ALL).measure(*TEXTS)) == ["answer scores"]


def test_inputs_go_by_their_names_and_arguments_to_compute():
    seen = []
    features = {"sources": TEXT, "predictions": TEXT, "references": TEXT}
    ModuleMeasure(module(lambda *given: seen.append(given) or {"n": 1}, features), {"scale": 3}, ALL).measure(*TEXTS)
    assert seen == [(["a b", "c"], ["a", "x"], ["a", "c"], 3)]


def test_a_module_that_takes_several_references_gets_lists_of_one():
    seen = []
    features = {"predictions": TEXT, "references": datasets.Sequence(TEXT)}
    ModuleMeasure(module(lambda *given: seen.append(given[1]) or {"n": 1}, features), {}, ALL).measure(*TEXTS)
    assert seen == [[["a"], ["x"]]]


def test_a_reward_of_texts_alone_needs_no_prompts():
    texts = ["The cat sleeps."]
    rows = RewardMeasure("tiny").measure(texts)
    assert rows["tiny reward"] == pytest.approx(rows["tiny acceptability"] + 0.5 * rows["tiny neutrality"], abs=1e-5)


def test_a_module_without_numbers_is_refused():
    with pytest.raises(InputError, match="numbers from the metric answer"):
        ModuleMeasure(module({"word": "x"}), {}, ALL).measure(*TEXTS)


@pytest.mark.parametrize(
    ("features", "given", "found"),
    [
        ({"predictions": datasets.Value("float32")}, ALL, "float32"),
        ({"predictions": TEXT, "references": TEXT}, ["predictions"], "only predictions"),
        ({"predictions": TEXT, "images": TEXT}, ALL, "only predictions, references, sources"),
    ],
)
def test_modules_that_do_not_fit_are_refused(features, given, found):
    with pytest.raises(InputError) as caught:
        ModuleMeasure(module({}, features), {}, given)
    assert found in caught.value.found


def test_a_metric_whose_package_is_missing_names_it(monkeypatch):
    def load(name, **arguments):
        raise ImportError("you need to install bert_score")

    monkeypatch.setattr(evaluate, "load", load)
    with pytest.raises(InputError, match=r"(?s)bert_score.*install the missing package"):
        load_measures(["bertscore"], judge=None, arguments={}, given=ALL)


def test_the_judge_is_the_config_name_of_our_own_only(monkeypatch):
    asked = []
    monkeypatch.setattr(
        evaluate, "load", lambda path, **arguments: asked.append((path, arguments)) or module({"n": 1})
    )
    names = ["grammaticality", "neutrality", "meteor"]
    arguments = {"neutrality": {"config_name": "user/model", "label": 1}, "meteor": {"scale": 2}}
    load_measures(names, judge="tiny", arguments=arguments, given=ALL)
    assert asked == [
        (measures.OWN["grammaticality"], {"config_name": "tiny"}),
        (measures.OWN["neutrality"], {"config_name": "user/model", "label": 1}),
        ("meteor", {}),
    ]


def test_a_module_that_takes_any_argument_is_left_to_it(monkeypatch):
    answer = module({"n": 1})
    monkeypatch.setattr(type(answer), "_compute", lambda self, predictions, **anything: {"n": len(anything)})
    rows = ModuleMeasure(answer, {"one": 1, "two": 2}, ALL).measure(*TEXTS)
    assert rows["answer n"] == 2


def test_no_metric_at_all_is_refused():
    with pytest.raises(InputError, match="one or more metrics"):
        check_metrics([], {}, ALL)


# Of one part: all that `evaluate` itself has.
ON_THE_HUB = """
accuracy bertscore bleu bleurt brier_score cer character charcut_mt chrf code_eval comet competition_math
confusion_matrix coval cuad exact_match f1 frugalscore glue google_bleu honest indic_glue label_distribution mae
mahalanobis mape mase matthews_correlation mauve mcnemar mean_iou meteor mse nist_mt pearsonr perplexity poseval
precision r_squared recall regard rl_reliability roc_auc sacrebleu sari seqeval smape spearmanr squad squad_v2
super_glue ter text_duplicates toxicity trec_eval wer wiki_split wilcoxon word_count word_length xnli xtreme_s
user/grammaticality user/neutrality me/rouge me/articel evaluate-metric/tinny
"""


@pytest.mark.parametrize("name", ON_THE_HUB.split())
def test_a_name_that_is_valid_on_the_hub_is_left_to_the_hub(name):
    assert check_metrics([name], {}, ALL) is None


@pytest.mark.parametrize(
    ("answer", "refused"),
    [(True, False), (False, True), (None, True)],
)
def test_a_slip_for_a_preset_is_refused_once_the_hub_lacks_it_or_is_not_reached(monkeypatch, answer, refused):
    def repo_info(self, name, **how):
        if not answer or name != "evaluate-measurement/articel":
            raise ConnectionError if answer is None else RepositoryNotFoundError("404", response=Mock())

    monkeypatch.setattr(HfApi, "repo_info", repo_info)
    if refused:
        with pytest.raises(InputError, match="did you mean 'article'"):
            check_metrics(["articel"], {}, ALL)
    else:
        assert check_metrics(["articel"], {}, ALL) is None


@pytest.mark.parametrize("name", ["gramaticality", "neutralty", "ruoge"])
def test_a_slip_for_one_of_our_metrics_is_refused_without_the_hub(name):
    with pytest.raises(InputError, match="did you mean"):
        check_metrics([name], {}, ALL)
