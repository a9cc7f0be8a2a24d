"""How grammatical texts are, judged by an acceptability classifier: a module for `evaluate.load`, and a Space's.

Needs the package trl_rewards_plugin, which has the scoring.
"""

import evaluate

from trl_rewards_plugin.metrics import classifier_metric

_DESCRIPTION = """\
Grammaticality: how acceptable a classifier finds each text, on average. The default judge is
textattack/roberta-base-CoLA, a RoBERTa that was fine-tuned to tell acceptable English sentences from unacceptable ones
(CoLA). Texts are scored alone, without references.
"""

_CITATION = """\
@article{warstadt-etal-2019-neural,
    title = "Neural Network Acceptability Judgments",
    author = "Warstadt, Alex and Singh, Amanpreet and Bowman, Samuel R.",
    journal = "Transactions of the Association for Computational Linguistics",
    volume = "7",
    year = "2019",
    pages = "625--641",
    doi = "10.1162/tacl_a_00290",
}
"""

_JUDGE = "textattack/roberta-base-CoLA"

_EXAMPLES = """
    >>> import evaluate
    >>> from trl_rewards_plugin.metrics import GRAMMATICALITY
    >>> grammaticality = evaluate.load(GRAMMATICALITY, "tiny")
    >>> results = grammaticality.compute(predictions=["The cat sleeps on the mat.", "Cat the on mat sleeps the."])
    >>> list(results)
    ['grammaticality', 'scores', 'share_above']
    >>> results["scores"][0] > results["scores"][1]
    True

    Raw logits, with a threshold of their own:

    >>> results = grammaticality.compute(predictions=["The cat sleeps."], score_type="logit", threshold=-10)
    >>> results["share_above"]
    1.0
    >>> results["grammaticality"] == results["scores"][0]
    True
"""

_INPUTS = classifier_metric.inputs_description("grammaticality", f"{_JUDGE}, LABEL_1", _EXAMPLES)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class Grammaticality(classifier_metric.ClassifierMetric):
    """How well-formed texts are, by one classifier."""

    component = "acceptability"
    about = (_DESCRIPTION, _CITATION, _INPUTS, _JUDGE)
