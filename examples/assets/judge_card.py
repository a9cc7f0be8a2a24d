"""Writes the README of a distilled judge from what was measured: how good it is, where it fails, how it was made.

Leaves out: measuring. What the licences of the training texts ask for comes from a file of the caller's.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from corrupt import MEASURED
from transformers import PreTrainedModel

from trl_rewards_plugin.errors import InputError

HOW_MADE = "## How it was made"
MADE = "made.json"  # beside a teacher's weights: the command and the log that made it

Figures = Mapping[str, float]


def command_line() -> str:
    """The running script's command line, with the names of files and folders less the folders that they lie in."""
    words = [Path(word).name if "/" in word else word for word in sys.argv]
    return shlex.join(["python", *words])


def judge_card(title: str, model: PreTrainedModel, figures: Figures, made: str, sources: str) -> str:
    """The README in Markdown.

    Args:
        figures: what `measure_judge.measure` returns of the saved judge.
        made: Markdown about how it came to be: `distilled`, `then_made`.
        sources: Markdown about the texts that teacher and judge learnt from, and their licences.
    """
    return f"""# {title}

{fill(_shape(model), 116)}

## How good

Measured by `examples/assets/measure_judge.py` on this folder, loaded in float32:

| On what | Figure |
| --- | --- |
{_table(figures, model.config.id2label.values())}

{fill(f"Where it fails: {_failures(figures)}", 116)}

{HOW_MADE}

{made}

{sources.strip()}
"""


def distilled(teacher_command: str, teacher_log: Sequence[str], log: Sequence[str]) -> str:
    """How the running script made a judge from a teacher, whose command and log's key lines are given."""
    return f"""Distilled from a teacher, which is not bundled:

    {teacher_command}

{_indented(teacher_log)}

into this judge, whose logits were then divided by the temperature that fits the development rows best:

    {command_line()}

{_indented(log)}"""


def how_made(readme: str, sources: str) -> str:
    """What `judge_card` was given as `made`, out of what it returned; refused where it did not write this."""
    made, end = readme.partition(HOW_MADE)[2], f"{sources.strip()}\n"
    if not made.endswith(end):
        expected = f"a README with {HOW_MADE!r} that ends with the text of --sources"
        raise InputError(expected, "another one", "give the --sources that the judge was made with")
    return made.removesuffix(end).strip()


def then_made(made: str, log: Sequence[str]) -> str:
    """How a judge was made, and then changed by the running script."""
    return f"""{made}

and then taken further without the teacher, as the middle between itself and the mean of copies:

    {command_line()}

{_indented(log)}"""


def _shape(model: PreTrainedModel) -> str:
    config = model.config
    labels = ", ".join(f"{row} `{label}`" for row, label in sorted(config.id2label.items()))
    return (
        f"A BERT classifier of {model.num_parameters():,} parameters ({config.num_hidden_layers} layers, "
        f"{config.vocab_size:,} word pieces, texts of up to {config.max_position_embeddings} pieces, case ignored) of "
        f"an English sentence or short text: label {labels}. For demonstration and tests; nothing else. The weights "
        "are kept in float16 and meant to be computed in float32, as `config.json` says."
    )


def _table(figures: Figures, labels: Sequence[str]) -> str:
    named = [f"Matthews correlation {figures['matthews']:.3f}"] if "matthews" in figures else []
    named += [f"macro-recall {figures['macro_recall']:.3f}", f"accuracy {figures['accuracy']:.3f}"]
    rows = [("development rows, kept aside", ", ".join(named))]
    rows += [("- expected calibration error of its probabilities, 10 bins", f"{figures['calibration_error']:.3f}")]
    for name in sorted({key.rpartition("_")[0] for label in labels for key in figures if key.endswith(f"_{label}")}):
        said = ", ".join(f"{label} {figures[f'{name}_{label}']:.1%}" for label in labels)
        rows.append((f"held-out sentences of `{name}`, of 4 to 40 words, unlabelled", said))
    if "spoilt_pairs" in figures:
        ahead = f"{figures['spoilt_pairs']:.1%} ranked above it"
        rows.append(("held-out sentences of these documents, each beside a spoilt copy", ahead))
        rows += [(f"- {kind.replace('_', ' ')}", f"{figures[f'spoilt_pairs_{kind}']:.1%}") for kind in MEASURED]
    if "pairs" in figures:
        rows.append(("held-out minimal pairs", f"{figures['pairs']:.1%} of the good ones ranked above the bad"))
    return "\n".join(f"| {what} | {figure} |" for what, figure in rows)


def _failures(figures: Figures) -> str:
    """The weakest of what was measured, in words."""
    wrong = f"{1 - figures['accuracy']:.0%} of the development rows get a wrong label"
    if "spoilt_pairs" not in figures:
        return f"{wrong}; other kinds of text than these were not measured."
    kind = min(MEASURED, key=lambda kind: figures[f"spoilt_pairs_{kind}"])
    missed = 1 - figures[f"spoilt_pairs_{kind}"]
    return (
        f"{wrong}; of the spoilt copies it overlooks `{kind}` most often ({missed:.0%} of these pairs). Compare its "
        "logits between texts rather than trust its verdict on one."
    )


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(fill(line, 116, initial_indent="    ", subsequent_indent="      ") for line in lines)
