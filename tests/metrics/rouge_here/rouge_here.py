"""ROUGE-L as an evaluate module that needs no network; the real one's inputs, result and `use_aggregator`."""

import datasets
import evaluate
from rouge_score import rouge_scorer


class RougeHere(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE-L.",
            citation="",
            inputs_description="",
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions, references, use_aggregator=True):
        scorer = rouge_scorer.RougeScorer(["rougeL"])
        pairs = zip(references, predictions, strict=True)
        scores = [scorer.score(reference, text)["rougeL"].fmeasure for reference, text in pairs]
        return {"rougeL": sum(scores) / len(scores) if use_aggregator else scores}
