"""How neutral in tone texts are, judged by a sentiment classifier: a module for `evaluate.load`, and a Space's.

Needs the package trl_rewards_plugin, which has the scoring.
"""

import evaluate

from trl_rewards_plugin.metrics import classifier_metric

_DESCRIPTION = """\
Neutrality: how neutral in tone a sentiment classifier finds each text, on average. The default judge is
cardiffnlp/twitter-roberta-base-sentiment, a RoBERTa that was fine-tuned to tell negative, neutral and positive tweets
apart (TweetEval). Texts are scored alone, without references.
"""

_CITATION = """\
@inproceedings{barbieri-etal-2020-tweeteval,
    title = "{T}weet{E}val: Unified Benchmark and Comparative Evaluation for Tweet Classification",
    author = "Barbieri, Francesco and Camacho-Collados, Jose and Espinosa Anke, Luis and Neves, Leonardo",
    booktitle = "Findings of the Association for Computational Linguistics: EMNLP 2020",
    year = "2020",
    pages = "1644--1650",
    doi = "10.18653/v1/2020.findings-emnlp.148",
}
"""

_JUDGE = "cardiffnlp/twitter-roberta-base-sentiment"

_EXAMPLES = """
    >>> import evaluate
    >>> from trl_rewards_plugin.metrics import NEUTRALITY
    >>> neutrality = evaluate.load(NEUTRALITY, "tiny")
    >>> results = neutrality.compute(predictions=["The train leaves at nine.", "I love this so much, best day ever!"])
    >>> list(results)
    ['neutrality', 'scores', 'share_above']
    >>> results["scores"][0] > results["scores"][1]
    True

    Raw logits, with a threshold of their own:

    >>> results = neutrality.compute(predictions=["The train leaves at nine."], score_type="logit", threshold=-10)
    >>> results["share_above"]
    1.0
    >>> results["neutrality"] == results["scores"][0]
    True
"""

_INPUTS = classifier_metric.inputs_description("neutrality", f"{_JUDGE}, LABEL_1 (neutral)", _EXAMPLES)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class Neutrality(classifier_metric.ClassifierMetric):
    """How neutral in tone texts are, by one classifier."""

    component = "neutrality"
    about = (_DESCRIPTION, _CITATION, _INPUTS, _JUDGE)
