"""How much scores rose, pair by pair, with a bootstrap interval: a module for `evaluate.load`, and a Space's.

Needs the package trl_rewards_plugin, which has the bootstrap.
"""

from typing import Any

import datasets
import evaluate

from trl_rewards_plugin.metrics import paired_gain

_DESCRIPTION = """\
Reward gain: the mean of (score after - score before) over prompts that were scored both times, with its 95%
CI over prompts (studentised bootstrap or Student's t, whichever is wider at each end) and the share of prompts
that improved. It recomputes the claim of a
before/after report from the scores themselves.
"""

_CITATION = """\
@book{efron-tibshirani-1993-bootstrap,
    title = "An Introduction to the Bootstrap",
    author = "Efron, Bradley and Tibshirani, Robert J.",
    publisher = "Chapman and Hall",
    year = "1993",
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list, array or tensor of float): scores after, one per prompt.
    references (list, array or tensor of float): scores before, of the same prompts in the same order. A pair in which
        either is None or NaN was not scored and is left out.
    resamples (int): draws of the bootstrap; 10,000 by default.
    seed (int): of the bootstrap's own generator; 0 by default. The same scores and seed give the same interval.

Returns:
    reward_gain (float): mean of after - before; None of no pairs.
    ci95 (list of two floats): 95% CI of the mean; [None, None] of fewer than 5 pairs, or of gains all alike.
    share_improved (float): share of pairs with after > before; None of no pairs.
    n (int): pairs that were scored both times.

Raises (all are ValueErrors):
    predictions, references: None where nothing was added before, or of one of them only; lists of different lengths;
    anything but numbers and None in a list; an infinite score. Empty lists are no error: the values are then None.
    resamples: no positive whole number. seed: no whole number of at least 0.

Examples:

    >>> import evaluate
    >>> from trl_rewards_plugin.metrics import REWARD_GAIN
    >>> reward_gain = evaluate.load(REWARD_GAIN)
    >>> results = reward_gain.compute(predictions=[1.5, 0.5, 2.0, 1.0, 1.25], references=[1.0, 0.5, 1.0, 0.5, 0.75])
    >>> [round(end, 2) for end in results["ci95"]], results["n"]
    ([0.06, 0.94], 5)

    A prompt that was not scored both times takes no part:

    >>> results = reward_gain.compute(predictions=[1.5, None], references=[1.0, 1.0])
    >>> results["reward_gain"], results["n"]
    (0.5, 1)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class RewardGain(evaluate.Metric):
    """How much paired scores rose, with an interval."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Adds pairs to those that the next `compute` compares. Raises InputError, a ValueError: see `compute`."""
        after = paired_gain.as_scores(predictions, "predictions")
        before = paired_gain.as_scores(references, "references")
        super().add_batch(predictions=after, references=before, **kwargs)

    def _compute(
        self,
        predictions: list[float],
        references: list[float],
        resamples: int = paired_gain.RESAMPLES,
        seed: int = 0,
    ) -> dict[str, Any]:
        return paired_gain.paired_gain(references, predictions, resamples=resamples, seed=seed)
