"""How neutral in tone texts are, judged by a sentiment classifier: a module for `evaluate.load`, and a Space's.

Needs the package trl_rewards_plugin, which has the scoring.
"""

import datasets
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

_KWARGS_DESCRIPTION = """
Config names, the second argument of `evaluate.load`:
    default: cardiffnlp/twitter-roberta-base-sentiment, LABEL_1 (neutral), from the Hub.
    tiny: the small judge inside trl_rewards_plugin; offline, for demonstration and tests only.
    any other: a text classifier's Hub id or folder, with label="..." (name or index of the label that is scored).

Args:
    predictions (list of str): texts. Of each, as many tokens are read as the judge has positions, at most 512; the
        rest is cut off.
    score_type (str): "probability" (default), "logit" (raw) or "log_probability" (nats).
    threshold (float): for `share_above`; by default 0.5 for probabilities, 0 for logits, log(0.5) for log
        probabilities.
    batch_size (int): texts in a forward pass; by default as many as fit into 16,384 tokens.
    device (str or torch.device): where to score from now on; by default where the judge is, which at first is this
        process's own accelerator, or the CPU.

Returns:
    neutrality (float): mean score; None of no texts.
    scores (list of float): each text's score.
    share_above (float): share of the texts that score above the threshold; None of no texts.

Raises (all are ValueErrors):
    predictions: None where nothing was added before, a single string, or a list that holds anything but texts.
    An empty list is no error: the mean and the share are then None.
    score_type, threshold, batch_size: an unknown score type, a threshold that is no number, no positive whole number.
    evaluate.load: a model without label, or a label that the model does not have (the message lists its labels).

Examples:

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


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Neutrality(classifier_metric.ClassifierMetric):
    """How neutral in tone texts are, by one classifier."""

    component = "neutrality"

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Value("string")}),
            reference_urls=["https://huggingface.co/cardiffnlp/twitter-roberta-base-sentiment"],
        )
