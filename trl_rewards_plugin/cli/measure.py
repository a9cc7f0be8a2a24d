"""`trl-rewards evaluate` and `score`: flags and YAML -> recipes/evaluate/, scoring/."""

import os
import sys
from collections.abc import Sequence

from trl_rewards_plugin import terminal
from trl_rewards_plugin.cli.flags import parse_settings
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.recipes.evaluate.evaluation_inputs import EvaluationInputs
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationSettings
from trl_rewards_plugin.rewards.files.file_content import check_servers
from trl_rewards_plugin.rows import STDIN
from trl_rewards_plugin.scoring.score_job import ScoreSettings, check_input, score_file


def evaluate(argv: Sequence[str]) -> int:
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
    inputs = EvaluationInputs(settings)  # refuses what it can at once
    terminal.silence_libraries()
    inputs.read()
    check_servers(settings.metrics)
    from trl_rewards_plugin.recipes.evaluate import compare  # loads torch

    reasons = compare.evaluate_outputs(inputs).get("failed", [])
    for reason in reasons:
        print(f"trl-rewards: failed: {reason}", file=sys.stderr)
    return 3 if reasons else 0


def score(argv: Sequence[str]) -> int:
    """Scores as the flags say; returns the exit code. The summary goes to standard error."""
    settings = parse_settings(
        ScoreSettings,
        argv,
        positional="input",
        metavar="INPUT",
        usage="trl-rewards score [INPUT] --reward NAME_OR_FILE.yaml [--output FILE] [options]",
        description="Scores texts by a reward: each row comes out as it came in, with its total and every component. "
        "With several GPUs: accelerate launch -m trl_rewards_plugin.cli.main score INPUT ...",
    )
    if settings.input == STDIN and sys.stdin is not None and sys.stdin.isatty():
        step = "give a file, or pipe texts in: trl-rewards score texts.jsonl --reward article"
        raise InputError("texts to score", "no input", step)
    checked = check_input(settings)  # what follows loads torch
    terminal.silence_libraries()
    try:
        summary = score_file(settings, checked)
    except InputError as error:
        if "prompts=" not in error.next_step:
            raise
        step = "add --prompt_column NAME, the column of the prompts"
        raise InputError(error.expected, error.found, step) from error
    except BrokenPipeError:
        # Who reads our output has had enough (`| head`). Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if summary is not None:
        place = f" in {settings.output}" if settings.output else ""
        before = f", {summary.earlier} of them before" if summary.earlier else ""
        spreads = {name: "" if std is None else f" ({std:.4f})" for name, std in summary.stds.items()}
        shown = {name: "missing" if mean is None else f"{mean:.4f}" for name, mean in summary.means.items()}
        means = ", ".join(f"{name} {mean}{spreads[name]}" for name, mean in shown.items())
        line = f"{summary.rows} texts{place}{before}, {summary.seconds:.1f} s. Means (std): {means}"
        print(line, file=sys.stderr)
    return 0
