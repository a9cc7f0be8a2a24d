"""How grammatical texts are, judged by an acceptability classifier: a module for `evaluate.load`, and a Space's.

Needs the package trl_rewards_plugin, which has the scoring.
"""

import datasets
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

_KWARGS_DESCRIPTION = """
Config names, the second argument of `evaluate.load`:
    default: textattack/roberta-base-CoLA, LABEL_1, from the Hub.
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
    grammaticality (float): mean score; None of no texts.
    scores (list of float): each text's score.
    share_above (float): share of the texts that score above the threshold; None of no texts.

Raises (all are ValueErrors):
    predictions: None where nothing was added before, a single string, or a list that holds anything but texts.
    An empty list is no error: the mean and the share are then None.
    score_type, threshold, batch_size: an unknown score type, a threshold that is no number, no positive whole number.
    evaluate.load: a model without label, or a label that the model does not have (the message lists its labels).

Examples:

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


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Grammaticality(classifier_metric.ClassifierMetric):
    """How well-formed texts are, by one classifier."""

    component = "acceptability"

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Value("string")}),
            reference_urls=["https://huggingface.co/textattack/roberta-base-CoLA"],
        )
