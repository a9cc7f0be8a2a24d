"""`trl-rewards evaluate MODEL`: flags and YAML -> `evaluate_outputs`. Leaves out: the job."""

from __future__ import annotations

from collections.abc import Sequence

from trl_rewards_plugin import terminal
from trl_rewards_plugin.cli.flags import parse_settings


def main(argv: Sequence[str]) -> int:
    """Evaluates as the flags say; returns the exit code."""
    from trl_rewards_plugin.recipes.evaluate import compare, evaluation_settings

    settings = parse_settings(
        evaluation_settings.EvaluationSettings,
        argv,
        positional="model",
        metavar="MODEL_OR_FILE",
        prog="trl-rewards evaluate",
        usage="trl-rewards evaluate [MODEL_OR_FILE] [--compare OTHER] [--metrics NAME ...] [options]",
        description="Evaluates a model, or a file of outputs, with any metrics, and writes a table, JSON and a plot. "
        "Against a second model or file it also reports the paired gain with its 95% CI.",
    )
    terminal.silence_libraries()
    compare.evaluate_outputs(settings)
    return 0
