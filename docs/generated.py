"""What the site's pages take from the code: the table of settings and the help of each command.

Run it before the site is built; the pages include what it writes to build/pages:

    python docs/generated.py && zensical build --strict

Leaves out: docstrings, which mkdocstrings reads.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from trl_rewards_plugin import Seq2SeqPPOConfig

FOLDER = Path(__file__).parents[1] / "build" / "pages"
COMMANDS = ("report", "score", "evaluate", "serve", "card", "push")


def settings() -> str:
    """The fields of Seq2SeqPPOConfig as a table: name, default, help."""
    rows = ["| Setting, default | |", "| --- | --- |"]  # two columns: a phone shows both
    for field in dataclasses.fields(Seq2SeqPPOConfig):
        if field.name in Seq2SeqPPOConfig.__annotations__:  # ours, or another default than transformers'
            text = field.metadata["help"].replace("|", "\\|")
            rows.append(f"| `{field.name}`<br>`{field.default!r}` | {text} |")
    return "\n".join(rows)


def command_help(command: str) -> str:
    """What `trl-rewards COMMAND --help` prints, as a code block."""
    arguments = [sys.executable, "-m", "trl_rewards_plugin.cli.main", command, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    return f"```text\n{done.stdout.rstrip()}\n```"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "settings.md").write_text(settings() + "\n", encoding="utf-8")
    for command in COMMANDS:
        (FOLDER / f"help_{command}.md").write_text(command_help(command) + "\n", encoding="utf-8")
