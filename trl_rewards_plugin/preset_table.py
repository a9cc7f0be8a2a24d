"""The rewards that have a name: one entry per preset, in the form of a reward file's `rewards:` (see preset_file.py).

The classifiers' labels are those of their model cards and configs.
"""

from typing import Any

ENDINGS = (".yaml", ".yml")
PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    # The article's pair: https://huggingface.co/textattack/roberta-base-CoLA, LABEL_1 = acceptable, and
    # https://huggingface.co/cardiffnlp/twitter-roberta-base-sentiment, LABEL_1 = neutral.
    "article": (
        {"model": "textattack/roberta-base-CoLA", "label": "LABEL_1", "weight": 1.0, "name": "acceptability"},
        {
            "model": "cardiffnlp/twitter-roberta-base-sentiment",
            "label": "LABEL_1",
            "weight": 0.5,
            "name": "neutrality",
        },
    ),
    # The same pair in small, bundled: for demonstration and tests only.
    "tiny": (
        {"asset": "acceptability-judge", "label": "acceptable", "weight": 1.0, "name": "acceptability"},
        {"asset": "sentiment-judge", "label": "neutral", "weight": 0.5, "name": "neutrality"},
    ),
    # Labels neutral and toxic; Jigsaw's comments, English.
    "non_toxic": ({"model": "s-nlp/roberta_toxicity_classifier", "label": "neutral", "name": "non_toxicity"},),
    # Labels polite, somewhat polite, neutral and impolite; customer service, English.
    "polite": ({"model": "Intel/polite-guard", "label": "polite", "name": "politeness"},),
    # Labels entailment, neutral and contradiction; English. The prompt is the premise and the completion the
    # hypothesis: does what was written follow from what was given?
    "faithful": (
        {
            "model": "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli",
            "label": "entailment",
            "pair": "prompt",
            "name": "faithfulness",
        },
    ),
    # The article's sentiment classifier, LABEL_2 = positive.
    "sentiment": ({"model": "cardiffnlp/twitter-roberta-base-sentiment", "label": "LABEL_2", "name": "positivity"},),
}
