"""How grammatical texts are, judged by an acceptability classifier: a module for `evaluate.load`, and a Space's.

Needs the package trl_rewards_plugin, which has the scoring.
"""

from trl_rewards_plugin.metrics import classifier_metric


class Grammaticality(classifier_metric.ClassifierMetric):
    """How well-formed texts are, by one classifier."""

    component = "acceptability"
    judge = ("textattack/roberta-base-CoLA", "LABEL_1")
    description = """\
Grammaticality: how acceptable a classifier finds each text, on average. The default judge is
textattack/roberta-base-CoLA, a RoBERTa that was fine-tuned to tell acceptable English sentences from unacceptable ones
(CoLA). Texts are scored alone, without references.
"""
    citation = """\
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
    examples = ("The cat sleeps on the mat.", "Cat the on mat sleeps the.")
