"""`trl-rewards evaluate MODEL`: flags and YAML -> `evaluate_outputs`. Leaves out: the job."""

import sys
from collections.abc import Sequence

from trl_rewards_plugin import terminal
from trl_rewards_plugin.cli.flags import parse_settings
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationInputs, EvaluationSettings


def main(argv: Sequence[str]) -> int:
    """Evaluates as the flags say; returns the exit code."""
    settings = parse_settings(
        EvaluationSettings,
        argv,
        positional="model",
        metavar="MODEL_OR_FILE",
        usage="trl-rewards evaluate [MODEL_OR_FILE] [--compare OTHER] [--metrics NAME ...] [options]",
        description="Evaluates a model, or a file of outputs, with any metrics, and writes a table, JSON and a plot. "
        "Against a second model or file it also reports the paired gain with its 95% CI.",
    )
    EvaluationInputs(settings)  # refuses what it can at once
    from trl_rewards_plugin.recipes.evaluate import compare  # loads torch

    terminal.silence_libraries()
    reasons = compare.evaluate_outputs(settings).get("failed", [])
    for reason in reasons:
        print(f"trl-rewards: failed: {reason}", file=sys.stderr)
    return 3 if reasons else 0
