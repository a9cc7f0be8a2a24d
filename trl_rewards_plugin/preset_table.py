"""The rewards that have a name: one entry per preset, in the form of a reward file's `rewards:` (see file_content.py).

The classifiers' labels are those of their model cards and configs.
"""

from typing import Any

ENDINGS = (".yaml", ".yml")


def _judge(model: str, label: str, name: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "label": label, "name": name, **more}


PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    # The article's pair: https://huggingface.co/textattack/roberta-base-CoLA, LABEL_1 = acceptable, and
    # https://huggingface.co/cardiffnlp/twitter-roberta-base-sentiment, LABEL_1 = neutral.
    "article": (
        _judge("textattack/roberta-base-CoLA", "LABEL_1", "acceptability", weight=1.0),
        _judge("cardiffnlp/twitter-roberta-base-sentiment", "LABEL_1", "neutrality", weight=0.5),
    ),
    # The same pair in small, bundled: for demonstration and tests only.
    "tiny": (
        {"asset": "acceptability-judge", "label": "acceptable", "weight": 1.0, "name": "acceptability"},
        {"asset": "sentiment-judge", "label": "neutral", "weight": 0.5, "name": "neutrality"},
    ),
    # Labels neutral and toxic; Jigsaw's comments, English.
    "non_toxic": (_judge("s-nlp/roberta_toxicity_classifier", "neutral", "non_toxicity"),),
    # Labels polite, somewhat polite, neutral and impolite; customer service, English.
    "polite": (_judge("Intel/polite-guard", "polite", "politeness"),),
    # Labels entailment, neutral and contradiction; English. The prompt is the premise and the completion the
    # hypothesis: does what was written follow from what was given?
    "faithful": (_judge("MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli", "entailment", "faithfulness", pair="prompt"),),
    # The article's sentiment classifier, LABEL_2 = positive.
    "sentiment": (_judge("cardiffnlp/twitter-roberta-base-sentiment", "LABEL_2", "positivity"),),
}
