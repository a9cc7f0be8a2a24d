"""How neutral in tone texts are, judged by a sentiment classifier: a module for `evaluate.load`, and a Space's.

Needs the package trl_rewards_plugin, which has the scoring.
"""

from trl_rewards_plugin.metrics import classifier_metric


class Neutrality(classifier_metric.ClassifierMetric):
    """How neutral in tone texts are, by one classifier."""

    component = "neutrality"
    judge = ("cardiffnlp/twitter-roberta-base-sentiment", "LABEL_1 (neutral)")
    description = """\
Neutrality: how neutral in tone a sentiment classifier finds each text, on average. The default judge is
cardiffnlp/twitter-roberta-base-sentiment, a RoBERTa that was fine-tuned to tell negative, neutral and positive tweets
apart (TweetEval). Texts are scored alone, without references.
"""
    citation = """\
@inproceedings{barbieri-etal-2020-tweeteval,
    title = "{T}weet{E}val: Unified Benchmark and Comparative Evaluation for Tweet Classification",
    author = "Barbieri, Francesco and Camacho-Collados, Jose and Espinosa Anke, Luis and Neves, Leonardo",
    booktitle = "Findings of the Association for Computational Linguistics: EMNLP 2020",
    year = "2020",
    pages = "1644--1650",
    doi = "10.18653/v1/2020.findings-emnlp.148",
}
"""
    examples = ("The train leaves at nine.", "I love this so much, best day ever!")
