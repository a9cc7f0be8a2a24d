"""`trl-rewards score INPUT`: flags and YAML -> `score_file`. Leaves out: the job (`scoring/score_job.py`)."""

import os
import sys
from collections.abc import Sequence

from trl_rewards_plugin import terminal
from trl_rewards_plugin.cli.flags import parse_settings
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.files.file_content import preset_content
from trl_rewards_plugin.rows import STDIN, format_of, read_rows
from trl_rewards_plugin.scoring.score_output import open_output
from trl_rewards_plugin.scoring.score_settings import ScoreSettings, check_columns, given_reward


def main(argv: Sequence[str]) -> int:
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
    form = format_of(settings.input, settings.input_format)
    if settings.input != STDIN:
        row = next(read_rows(settings.input, form, settings.text_column), None)
        if row is not None:
            check_columns(settings, row, 1)
    preset_content(given_reward(settings))
    open_output(settings.output)
    from trl_rewards_plugin.scoring.score_job import score_file  # loads torch

    terminal.silence_libraries()
    try:
        summary = score_file(settings)
    except InputError as error:
        if "prompts=" not in error.next_step:
            raise
        step = "add --prompt-column NAME, the column of the prompts"
        raise InputError(error.expected, error.found, step) from error
    except BrokenPipeError:
        # Who reads our output has had enough (`| head`). Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if summary is not None:
        place = f" in {settings.output}" if settings.output else ""
        before = f", {summary.earlier} of them before" if summary.earlier else ""
        spreads = {name: "" if std is None else f" ({std:.4f})" for name, std in summary.stds.items()}
        means = (
            f"{name} {'missing' if mean is None else f'{mean:.4f}'}{spreads[name]}"
            for name, mean in summary.means.items()
        )
        line = f"{summary.rows} texts{place}{before}, {summary.seconds:.1f} s. Means (std): {', '.join(means)}"
        print(line, file=sys.stderr)
    return 0
